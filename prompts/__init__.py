"""The texts agents are given, as Markdown templates; `autocoder.core.prompts` fills them."""
