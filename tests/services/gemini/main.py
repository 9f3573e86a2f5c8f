"""A chatbot that streams Gemini's answers."""

import functools
import os

import google.auth
from flask import Flask, Response, jsonify, render_template, request
from google import genai

app = Flask(__name__)
MODEL = os.environ.get("MODEL", "gemini-2.5-flash")


@functools.cache
def client():
    """Return the client of Vertex AI, in the project that the service runs in."""
    _credentials, project = google.auth.default()
    location = os.environ.get("GOOGLE_CLOUD_LOCATION", "global")
    return genai.Client(vertexai=True, project=project, location=location)


@app.get("/")
def index():
    return render_template("index.html", model=MODEL)


@app.post("/chat")
def chat():
    message = str((request.get_json(silent=True) or {}).get("message", "")).strip()
    if not message:
        return jsonify(error="a message is required"), 400
    chunks = client().models.generate_content_stream(model=MODEL, contents=message)
    # The first piece before the answer starts, so that an error has a status of its own.
    try:
        first = next(chunks)
    except StopIteration:
        return Response("", mimetype="text/plain")
    except genai.errors.APIError as error:
        return jsonify(error=str(error)), 502

    def stream():
        yield first.text or ""
        for chunk in chunks:
            yield chunk.text or ""

    return Response(stream(), mimetype="text/plain")
