"""Gemini on Vertex AI: a stand-in model, so that services that call Gemini run without Google."""
