"""The report's last part: how to use the model, and what it was made from."""

import os
from html import escape

from tandem.report_words import missing, section

CODE = """from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))"""


def loading(inputs):
    title, folder = "How to use the model", os.path.join(inputs.job_folder, "artifacts", "model")
    if not os.path.isdir(folder):
        return section(title, missing("no model was exported"))
    note = (
        "Works with transformers 4.56 and later, and 5; needs torch and transformers only. The "
        "classes lie in the folder, hence trust_remote_code. Generating keeps a cache of constant "
        "size, however long the text."
    )
    return section(title, f"<pre>{escape(CODE.format(path=repr(folder)), quote=False)}</pre>", note)


def provenance(inputs):
    plan, found = inputs.plan, inputs.evaluation
    entries = [
        ("Job", found.get("job") or plan.get("job_name")),
        ("Job uid", found.get("uid") or plan.get("job_uid")),
        ("Base model", plan.get("model")),
        ("Seed", plan.get("seed")),
        ("Spec SHA-256", plan.get("spec_sha256")),
        ("Tokenizer SHA-256", inputs.tokens.get("tokenizer_sha256")),
        ("Tokens", tokens_words(inputs.tokens)),
        *sources(inputs.tokens),
        *manifest_digests(inputs.manifest),
    ]
    rows = "".join(
        f'<dt>{escape(str(name))}</dt><dd class="digest">{escape(str(value))}</dd>'
        for name, value in entries
        if value not in (None, "")
    )
    absent = ""
    if inputs.absent:
        words = escape("; ".join(inputs.absent))
        absent = f'<p class="note">Not found when this report was made: {words}.</p>'
    return section("Where it comes from", f"<dl>{rows}</dl>{absent}")


def tokens_words(manifest):
    tokens = manifest.get("tokens")
    if not isinstance(tokens, dict):
        return None
    words = ", ".join(f"{count:,} {split}" for split, count in tokens.items())
    return f"{words} (validation: {manifest.get('validation', '?')})"


def sources(manifest):
    for split in ("train", "validation"):
        for source in manifest.get("sources", {}).get(split, []):
            words = f"{source.get('name')}, {source.get('bytes', 0):,} bytes"
            yield f"Text ({split})", f"{words}, SHA-256 {source.get('sha256')}"


def manifest_digests(manifest):
    """The digests of the export's manifest, whatever its groups are called."""
    for group, value in sorted(manifest.items()):
        if isinstance(value, str) and group.endswith("sha256"):
            yield group, value
        elif isinstance(value, dict):
            for name, entry in sorted(value.items()):
                digest = entry.get("sha256") if isinstance(entry, dict) else entry
                if isinstance(digest, str) and len(digest) == 64:
                    yield f"{group}: {name}", digest
