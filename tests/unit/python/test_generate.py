"""tandem.generate without a model: text in whole characters, where the base is, what is refused."""

import json
import stat

import pytest

from tandem import generate
from tandem.violations import DataRefused

BYTES = {i: bytes([i]) for i in range(256)}


def decode(ids):
    return b"".join(BYTES[i] for i in ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["plain", "Zoë – 日本語 🦙!", "🦙" * 5, ""])
@pytest.mark.parametrize("before", ["", "a prompt that is longer than the context", "é"])
def test_pieces_are_whole_characters_and_add_up_to_the_text(text, before):
    stream = generate.TextStream(decode, list(before.encode()))
    pieces = [stream.add(byte) for byte in text.encode()] + [stream.rest()]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert len([p for p in pieces if p]) == len(text)


def test_bytes_that_never_become_a_character_come_at_the_end():
    stream = generate.TextStream(decode, [])
    assert stream.add(0xF0) == "" and stream.add(0x9F) == ""
    assert stream.rest() == "\ufffd"


def folder(path, config, **files):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return str(path)


def refusal(call, *arguments):
    with pytest.raises(DataRefused) as caught:
        call(*arguments)
    return " ".join(message for _, message in caught.value.violations)


def test_the_base_is_the_one_given_or_the_one_the_manifest_names(tmp_path):
    base = folder(tmp_path / "base", {})
    manifest = {"spec": {"model": {"path": base}}}
    model = folder(tmp_path / "model", {"hybrid": {}}, manifest=manifest)
    assert generate.find_base(model, None) == base
    assert generate.find_base(model, "elsewhere") == "elsewhere"
    assert "base model itself" in refusal(generate.find_base, base, None)


def test_a_base_that_is_gone_or_not_named_is_said(tmp_path):
    gone = {"spec": {"model": {"path": str(tmp_path / "gone")}}}
    model = folder(tmp_path / "a", {"hybrid": {}}, manifest=gone)
    assert "no longer" in refusal(generate.find_base, model, None)
    nameless = folder(tmp_path / "b", {"hybrid": {}}, manifest={"spec": None})
    assert "--base" in refusal(generate.find_base, nameless, None)


def test_what_is_no_model_is_refused_by_name(tmp_path):
    assert "no folder" in refusal(generate.open_tokenizer, str(tmp_path / "nowhere"))
    assert "config.json" in refusal(generate.open_tokenizer, str(tmp_path))
    assert "tokenizer.json" in refusal(generate.open_tokenizer, folder(tmp_path / "m", {}))


def test_a_text_ends_where_the_generation_config_says(tmp_path):
    class Tokenizer:
        eos = 9

    both = folder(tmp_path / "a", {"eos_token_id": 3}, generation_config={"eos_token_id": [4, 5]})
    assert generate.stop_ids(both, Tokenizer) == [4, 5]
    assert generate.stop_ids(folder(tmp_path / "b", {"eos_token_id": 3}), Tokenizer) == [3]
    assert generate.stop_ids(folder(tmp_path / "c", {}), Tokenizer) == [9]


def rank_that(tmp_path, script):
    path = tmp_path / "rank"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_a_rank_that_dies_or_fails_is_told_with_its_words(tmp_path):
    dies = rank_that(tmp_path, "echo 'it broke' >&2; exit 7\n")
    with pytest.raises(generate.GenerationFailed, match="7\nit broke"):
        generate.write(dies, {}, print)
    fails = rank_that(tmp_path, """echo '{"event": "failed", "message": "no weights"}'\n""")
    with pytest.raises(generate.GenerationFailed, match="no weights"):
        generate.write(fails, {}, print)
