"""A chat room: everyone who has the page open sees every message at once."""

import json
import queue
import threading
import uuid
from collections import deque

from flask import Flask, Response, jsonify, render_template, request

app = Flask(__name__)

# In memory: a second instance would have its own messages, and its browsers would not see these.
INSTANCE = uuid.uuid4().hex[:8]
history = deque(maxlen=100)
listeners = set()
lock = threading.Lock()


@app.get("/")
def index():
    return render_template("index.html")


@app.post("/messages")
def send():
    body = request.get_json(silent=True) or {}
    nickname = str(body.get("nickname", "")).strip()[:30]
    text = str(body.get("text", "")).strip()[:1000]
    if not nickname or not text:
        return jsonify(error="nickname and text are required"), 400
    message = {"nickname": nickname, "text": text}
    with lock:
        history.append(message)
        for listener in listeners:
            listener.put(message)
    return jsonify(message), 201


@app.get("/messages")
def messages():
    with lock:
        return jsonify(list(history))


@app.get("/events")
def events():
    def stream():
        listener = queue.Queue()
        with lock:
            listeners.add(listener)
            past = list(history)
        try:
            yield event("instance", {"id": INSTANCE})
            for message in past:
                yield event("message", message)
            while True:
                try:
                    yield event("message", listener.get(timeout=15))
                except queue.Empty:
                    yield ": still here\n\n"  # finds out that the browser has gone
        finally:
            with lock:
                listeners.discard(listener)

    return Response(stream(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
