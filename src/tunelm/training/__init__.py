"""Training in a process of its own: files in, files out.

`python -m tunelm.training WORK` reads `job.json`, `train.jsonl` and `dev.jsonl` in WORK and
writes there:

    events.jsonl   one JSON object a line: start or resumed, step, evaluation, done. After a
                   kill, steps since the last checkpoint stand in it twice.
    heartbeat      touched every two seconds while the process lives; its process id and host
    checkpoints/   step-N: the last two and the best
    adapter/       PEFT's format, and tunelm.json: the base's identity, the prompt, settings
    result.json    written last

Rows become tokens (`rows`), batches (`batches`) and steps (`steps`, `loop`). `process` starts
and follows such a process; `job` writes its files. Importing this package loads no torch.
"""
