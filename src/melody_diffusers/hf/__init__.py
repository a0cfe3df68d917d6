"""Everything that is Hugging Face's and not the paper's: names, loading, saving, publishing, adapters."""
