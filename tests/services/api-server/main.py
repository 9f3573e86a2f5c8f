"""An API server."""

import os

import docker
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI(title="API server")
items: dict[int, "Item"] = {}


class Item(BaseModel):
    name: str
    price: float


class Container(BaseModel):
    image: str = "hello-world"


@app.get("/")
async def root():
    return {"message": os.environ.get("GREETING", "Hello"), "environment": os.environ.get("ENVIRONMENT", "local")}


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/items", status_code=201)
async def add(item: Item):
    number = len(items) + 1
    items[number] = item
    return {"id": number, **item.model_dump()}


@app.get("/items/{number}")
async def read(number: int):
    if number not in items:
        raise HTTPException(404, "no such item")
    return {"id": number, **items[number].model_dump()}


@app.post("/containers")
def run(container: Container):
    """Run a container in this container."""
    try:
        output = docker.from_env().containers.run(container.image, remove=True)
    except docker.errors.DockerException as error:
        raise HTTPException(503, f"Docker is not available: {error}") from error
    return {"output": output.decode()}
