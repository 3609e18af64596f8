"""The embedded models: small, real, and served on the learner's own machine.

`weights` fetches and verifies them, `gpt` serves the GPT, `bert` loads the BERT. Importing any of these is instant.
"""
