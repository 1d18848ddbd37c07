"""The report's last part: how to use the model, and what it was made from."""

import os
from html import escape

from tandem.report_story import recipe_of, retained_words
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
        "size, however long the text"
    )
    note += ", but for the attention that was retained." if retained_words(inputs) else "."
    return section(title, f"<pre>{escape(CODE.format(path=repr(folder)), quote=False)}</pre>", note)


def provenance(inputs):
    plan, found = inputs.plan, inputs.evaluation
    entries = [
        ("Job", found.get("job") or plan.get("job_name")),
        ("Job uid", found.get("uid") or plan.get("job_uid")),
        ("Base model", plan.get("model")),
        ("Recipe", recipe_of(inputs)),
        ("Seed", plan.get("seed")),
        ("Device", plan.get("device")),
        ("Tokenizer library", inputs.tokens.get("library_version")),
        ("Spec SHA-256", plan.get("spec_sha256")),
        ("Tokenizer SHA-256", inputs.tokens.get("tokenizer_sha256")),
        ("Tokens", tokens_words(inputs.tokens)),
        *sources(inputs.tokens),
        *digests(inputs.manifest),
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
    files = file_digests(inputs.manifest)
    return section("Where it comes from", f"<dl>{rows}</dl>{files}{absent}")


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


def digests(manifest):
    """Of the exported model's manifest: what went in, and each file of the directory."""
    base, data = manifest.get("base") or {}, manifest.get("data") or {}
    yield "Base model SHA-256", base.get("sha256")
    yield "Token manifest SHA-256", data.get("manifest_sha256")


def file_digests(manifest):
    groups = {"base": (manifest.get("base") or {}).get("files"), "exported": manifest.get("files")}
    rows = "".join(
        f'<dt>{group}: {escape(name)}</dt><dd class="digest">{escape(str(digest))}</dd>'
        for group, files in groups.items()
        if isinstance(files, dict)
        for name, digest in sorted(files.items())
    )
    if not rows:
        return ""
    return f"<details><summary>SHA-256 of every file</summary><dl>{rows}</dl></details>"
