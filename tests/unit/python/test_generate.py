"""tandem.generate without a model: text in whole characters, where the base is, the prompt as a chat,
what is refused."""

import json
import os
import stat

import pytest
from prepare_request import make_model
from tandem import generate, model_folder
from tandem.text_stream import TextStream
from tandem.violations import DataRefused
from transformers import PreTrainedTokenizerFast

BYTES = {i: bytes([i]) for i in range(256)}


def decode(ids):
    return b"".join(BYTES[i] for i in ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["plain", "Zoë – 日本語 🦙!", "🦙" * 5, ""])
@pytest.mark.parametrize("before", ["", "a prompt that is longer than the context", "é"])
def test_pieces_are_whole_characters_and_add_up_to_the_text(text, before):
    stream = TextStream(decode, list(before.encode()))
    pieces = [stream.add(byte) for byte in text.encode()] + [stream.rest()]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert len([p for p in pieces if p]) == len(text)


def test_bytes_that_never_become_a_character_come_at_the_end():
    stream = TextStream(decode, [])
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
    assert model_folder.find_base(model, None) == base
    assert model_folder.find_base(model, "elsewhere") == "elsewhere"
    assert "base model itself" in refusal(model_folder.find_base, base, None)


def test_a_base_that_is_gone_or_not_named_is_said(tmp_path):
    gone = {"spec": {"model": {"path": str(tmp_path / "gone")}}}
    model = folder(tmp_path / "a", {"hybrid": {}}, manifest=gone)
    assert "no longer" in refusal(model_folder.find_base, model, None)
    nameless = folder(tmp_path / "b", {"hybrid": {}}, manifest={"spec": None})
    assert "--base" in refusal(model_folder.find_base, nameless, None)


def test_what_is_no_model_is_refused_by_name(tmp_path):
    assert "no folder" in refusal(generate.open_tokenizer, str(tmp_path / "nowhere"))
    assert "config.json" in refusal(generate.open_tokenizer, str(tmp_path))
    assert "tokenizer.json" in refusal(generate.open_tokenizer, folder(tmp_path / "m", {}))


# As the published templates do it: a default system message, today's date, BOS and trimmed content.
CHATML = """{%- if messages[0]['role'] != 'system' %}
    {{- '<s>system\\nYou are helpful.</s>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<s>' + message.role + '\\n' + message['content'] + '</s>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<s>assistant\\n' }}
{%- endif %}
"""
DATED = """{{- bos_token }}
{%- if not tools is defined or tools is none %}
{%- if strftime_now is defined %}
    {{- 'Today Date: ' + strftime_now("%d %b %Y") }}
{%- else %}
    {{- 'Today Date: 26 Jul 2024' }}
{%- endif %}
{%- endif %}
{%- for message in messages %}
    {{- '[' + message.role + ']' + message.content | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""


@pytest.mark.parametrize("template", [CHATML, DATED])
@pytest.mark.parametrize("text", ["Who?", "  Wer, \nздесь? 日本語 🦙 {{ 1 }} </s>", ""])
def test_a_chat_prompt_is_that_of_transformers(tmp_path, template, text):
    path = str(tmp_path / "model")
    make_model(tmp_path / "model", chat_template=template)
    ids = generate.encode_prompt(path, generate.open_tokenizer(path), text, chat=True)
    theirs = PreTrainedTokenizerFast.from_pretrained(path)
    wanted = theirs.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert ids == list(wanted) and len(ids) > len(theirs(text)["input_ids"])


def test_a_chat_without_a_template_is_refused(tmp_path):
    for name, settings, words in (
        ("none", {}, "has no chat template"),
        ("broken", {"chat_template": "{% for %}"}, "not valid"),
        ("strict", {"chat_template": "{{ raise_exception('system first') }}"}, "system first"),
        ("silent", {"chat_template": "{# nothing #}"}, "no tokens"),
    ):
        make_model(tmp_path / name, **settings)
        path = str(tmp_path / name)
        tokenizer = generate.open_tokenizer(path)
        assert words in refusal(generate.encode_prompt, path, tokenizer, "Hi", True)
        assert generate.encode_prompt(path, tokenizer, "Hi", False)


def test_a_prompt_that_is_not_utf8_is_refused(tmp_path, capsys):
    make_model(tmp_path / "model")
    arguments = [str(tmp_path / "model"), "--rank", "none", "--prompt", os.fsdecode(b"a\xff")]
    assert generate.main(arguments) == generate.REFUSED
    assert "--prompt is not UTF-8" in capsys.readouterr().err


def test_bfloat16_on_the_cpu_is_refused_before_anything_is_read(tmp_path, capsys):
    arguments = [str(tmp_path), "--rank", "none", "--prompt", "x", "--dtype", "bfloat16"]
    assert generate.main(arguments) == generate.REFUSED
    assert "--device cuda" in capsys.readouterr().err


def test_a_text_ends_where_the_generation_config_says(tmp_path):
    class Tokenizer:
        eos = 9

    both = folder(tmp_path / "a", {"eos_token_id": 3}, generation_config={"eos_token_id": [4, 5]})
    assert model_folder.stop_ids(both, Tokenizer) == [4, 5]
    assert model_folder.stop_ids(folder(tmp_path / "b", {"eos_token_id": 3}), Tokenizer) == [3]
    assert model_folder.stop_ids(folder(tmp_path / "c", {}), Tokenizer) == [9]


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
