"""A `vllm` for machines without: the command line and the protocol of vLLM 0.32, by our engine.

It answers as vLLM does what `tunelm.server.vllm` asks of it, with real answers of the real model,
and writes down how it was started. FAKE_VLLM names a folder for that; a file `crash` there makes
it end before it is ready, with what the file says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tunelm.config import ModelConfig
from tunelm.server.asking import Ask, Piece, Sampling, Scored
from tunelm.server.engine import LightEngine


def folder() -> Path:
    return Path(os.environ["FAKE_VLLM"])


def named(scored: Scored) -> dict[str, float | None]:
    return {f"token_id:{token}": value for token, value in scored.top}


def choice(piece: Piece, top: int | None) -> dict[str, Any]:
    """A choice of a stream; the end token is not among `token_ids`."""
    logprobs = None
    if top is not None:
        logprobs = {
            "tokens": [f"token_id:{s.token}" for s in piece.scored],
            "token_logprobs": [s.logprob for s in piece.scored],
            "top_logprobs": [named(s) for s in piece.scored],
        }
    return {
        "index": 0,
        "text": piece.text,
        "token_ids": [s.token for s in piece.scored],
        "logprobs": logprobs,
        "finish_reason": None if piece.finish is None else piece.finish.value,
    }


def build(engine: LightEngine, key: str, max_rank: int) -> FastAPI:
    app = FastAPI()
    adapters: dict[str, Path] = {}

    @app.middleware("http")
    async def guard(request: Request, answer: Any) -> Any:
        given = request.headers.get("authorization")
        if request.url.path.startswith("/v1") and given != f"Bearer {key}":  # as vLLM does
            return JSONResponse({"error": "Unauthorized"}, 401)
        return await answer(request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.post("/v1/load_lora_adapter")
    async def load(body: dict[str, Any]) -> Any:
        path = Path(body["lora_path"])
        if json.loads((path / "adapter_config.json").read_text())["r"] > max_rank:
            said = {"message": f"LoRA rank is greater than max_lora_rank {max_rank}", "code": 400}
            return JSONResponse({"error": said}, 400)
        adapters[body["lora_name"]] = path
        record("loaded", str(path))
        return "Success"

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: dict[str, Any]) -> Any:
        record("unloaded", str(adapters.pop(body["lora_name"])))
        return "Success"

    @app.post("/v1/completions")
    async def complete(body: dict[str, Any]) -> Any:
        if (folder() / "die").exists():
            os._exit(9)
        top, prompt = body.get("logprobs"), body["prompt"]
        seed = None if body["seed"] is None else str(body["seed"])
        bias = {int(token): value for token, value in (body.get("logit_bias") or {}).items()}
        sampling = Sampling(body["temperature"], body["top_p"], seed, bias=bias)
        asked = body.get("prompt_logprobs")
        ask = Ask(
            prompt,
            body["max_tokens"],
            None if body["model"] == "base" else adapters[body["model"]],
            sampling,
            top=top or asked or 0,
            score_prompt=asked is not None,
            stream=bool(body.get("stream")),
        )
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()

        def emit(_: int, piece: Piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        ticket = engine.submit([ask], emit)
        if not ask.stream:
            piece = await pieces.get()
            places: list[Any] = [None]
            for scored in piece.prompt:
                all_of_it = [(scored.token, scored.logprob), *scored.top]
                places.append({str(t): {"logprob": p, "rank": 1} for t, p in all_of_it})
            return {"choices": [choice(piece, top) | {"prompt_logprobs": places}]}

        async def events() -> AsyncIterator[str]:
            try:
                while True:
                    piece = await pieces.get()
                    yield f"data: {json.dumps({'choices': [choice(piece, top)]})}\n\n"
                    if piece.last:
                        yield "data: [DONE]\n\n"
                        return
            finally:
                engine.cancel(ticket)
                record("left" if not piece.last else "answered", body["model"])

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def record(what: str, detail: Any) -> None:
    with (folder() / "record.jsonl").open("a") as file:
        file.write(json.dumps([what, detail]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name in ("host", "served-model-name", "dtype", "generation-config"):
        parser.add_argument(f"--{name}")
    for name in ("port", "max-model-len", "max-num-seqs", "max-lora-rank", "max-loras"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--max-cpu-loras", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--enable-lora", action="store_true")
    given = parser.parse_args()
    record("pid", os.getpid())
    record("options", vars(given))
    record("may load adapters", os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"))
    if (folder() / "crash").is_file():
        sys.exit((folder() / "crash").read_text())
    config = ModelConfig(base=given.model, max_length=given.max_model_len)
    engine = LightEngine(config, given.max_num_seqs)
    engine.start()
    app = build(engine, os.environ["VLLM_API_KEY"], given.max_lora_rank)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
