"""The encoders and decoders of `AudioVAEGAN`, one file for each head."""
