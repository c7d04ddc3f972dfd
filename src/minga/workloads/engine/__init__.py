"""An engine for language models inside a job: a Hugging Face checkpoint behind OpenAI's HTTP API, on loopback.

    python -m engine --model /job/model --port 8000 [--name NAME] [--device cpu]

Imports PyTorch, transformers and the standard library, nothing of Minga: this folder is sent along with the job that
runs it.

| route                     | what                                                              |
|---------------------------|-------------------------------------------------------------------|
| GET  /health              | 200 once the model is loaded; how many requests wait              |
| GET  /v1/models           | the one model: id, context length, parameters, quantisation       |
| POST /v1/chat/completions | messages → a reply, whole or streamed (SSE)                       |
| POST /v1/completions      | a prompt → its continuation, whole or streamed                    |

One reply is computed at a time; others wait. A reply is a function of weights, request and seed: sampling draws from a
generator of its own, so the same request gives the same text again on the same kind of processor. What the engine
cannot do is refused by name (400), never ignored. Stop by SIGTERM.
"""
