"""Runs the plain PyTorch anchor several times in one process: importing torch is most of a run.

    anchor_runs.py ANCHORS MODEL TEXT OUT RUNS.json

RUNS.json: a list of argument lists; "@OUT" becomes OUT and "@TOKENS" the file of raw ids, which is written first.
"""
import json
import sys
from pathlib import Path

anchors, model, text, out, runs = sys.argv[1:]
sys.path.insert(0, anchors)
sys.dont_write_bytecode = True
import eager_trainer  # noqa: E402

tokens = f"{out}/tokens.u16"
config = json.loads((Path(model) / "config.json").read_text())
ids = eager_trainer.read_tokens(text, model, config, 16384)
Path(tokens).write_bytes(b"".join(i.to_bytes(2, "little") for i in ids.tolist()))
for arguments in json.loads(Path(runs).read_text()):
    filled = [a.replace("@OUT", out).replace("@TOKENS", tokens) for a in arguments]
    sys.argv = ["eager_trainer.py", "--model", model, "--data", tokens, *filled]
    eager_trainer.main()
