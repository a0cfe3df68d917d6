"""ComfyUI reads this folder: which nodes there are, and what they are called."""

from .nodes import MeLoDyEdit, MeLoDyGenerate, MeLoDyLoop

NODE_CLASS_MAPPINGS = {node.__name__: node for node in (MeLoDyGenerate, MeLoDyEdit, MeLoDyLoop)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "MeLoDyGenerate": "MeLoDy: music from text",
    "MeLoDyEdit": "MeLoDy: fill or continue a recording",
    "MeLoDyLoop": "MeLoDy: loop",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
