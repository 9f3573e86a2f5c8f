"""A to-do list."""

import os
import sqlite3

from flask import Flask, g, jsonify, render_template, request

DATABASE_PATH = os.environ.get("DATABASE_PATH", "todo.db")

app = Flask(__name__)


def database():
    if "database" not in g:
        g.database = sqlite3.connect(DATABASE_PATH)
        g.database.row_factory = sqlite3.Row
    return g.database


@app.teardown_appcontext
def close(_error):
    if "database" in g:
        g.pop("database").close()


with sqlite3.connect(DATABASE_PATH) as start:
    start.execute(
        "CREATE TABLE IF NOT EXISTS items"
        " (id INTEGER PRIMARY KEY, title TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0)"
    )


def found(number):
    row = database().execute("SELECT * FROM items WHERE id = ?", (number,)).fetchone()
    return None if row is None else {**dict(row), "done": bool(row["done"])}


@app.get("/")
def index():
    return render_template("index.html")


@app.get("/items")
def items():
    rows = database().execute("SELECT * FROM items ORDER BY id").fetchall()
    return jsonify([{**dict(row), "done": bool(row["done"])} for row in rows])


@app.post("/items")
def add():
    title = str((request.get_json(silent=True) or {}).get("title", "")).strip()
    if not title:
        return jsonify(error="a title is required"), 400
    with database() as connection:
        number = connection.execute("INSERT INTO items (title) VALUES (?)", (title,)).lastrowid
    return jsonify(found(number)), 201


@app.patch("/items/<int:number>")
def change(number):
    item = found(number)
    if item is None:
        return jsonify(error="no such item"), 404
    body = request.get_json(silent=True) or {}
    title = str(body.get("title", item["title"])).strip()
    if not title:
        return jsonify(error="a title is required"), 400
    done = bool(body.get("done", item["done"]))
    with database() as connection:
        connection.execute("UPDATE items SET title = ?, done = ? WHERE id = ?", (title, done, number))
    return jsonify(found(number))


@app.delete("/items/<int:number>")
def delete(number):
    with database() as connection:
        gone = connection.execute("DELETE FROM items WHERE id = ?", (number,)).rowcount
    return ("", 204) if gone else (jsonify(error="no such item"), 404)
