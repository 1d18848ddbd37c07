"""What a record of a data set says: its columns to parts of text, each trained or only read.

Forms, by the columns that a record has; the first that fits:

    messages                       [{"role", "content"}, ...] through the model's chat template; what
                                   the assistant says is trained
    instruction, output (, input)  Stanford Alpaca's template in its two forms; `output` is trained
    prompt, response               as they stand; `response` is trained
    text                           a plain document; all of it is trained

data.text_key names another column than `text`, which then comes before all forms.
data.train_on_prompt trains every part. Parts are tokenised apart and joined (method.md §7).
"""

import json
from typing import NamedTuple

from tandem.violations import BadDocument

# github.com/tatsu-lab/stanford_alpaca, train.py: the prompts that its published data is used with.
ALPACA_TEMPLATE = "stanford_alpaca"
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)
COLUMNS = ("messages", "instruction", "input", "output", "prompt", "response", "text")
NEEDED = (
    "`text`, or `instruction` and `output`, or `prompt` and `response`, or `messages`; "
    "data.text_key names another column"
)


class Document(NamedTuple):
    """parts: (text, whether it is trained). whole: a chat template has set beginning and end.

    tokens: (ids, labels or None) of a document that is tokenised already; parts are then empty.
    """

    parts: tuple
    whole: bool = False
    tokens: tuple | None = None

    @property
    def text(self):
        return "".join(text for text, _ in self.parts)

    @property
    def content(self):
        """Bytes that tell this document from others."""
        return self.text.encode() if self.tokens is None else self.tokens[0].tobytes()

    @property
    def empty(self):
        return self.tokens is None and not any(text for text, _ in self.parts)


class RecordForms:
    def __init__(self, text_key="text", train_on_prompt=False, tokenizer=None):
        """tokenizer: has the chat template, and is the one that shards must be made with."""
        self.text_key, self.train_on_prompt = text_key, train_on_prompt
        self.tokenizer = tokenizer
        self.chat_template = tokenizer and tokenizer.chat_template

    def columns(self):
        return {*COLUMNS, self.text_key}

    def document_of_line(self, line):
        """Of a line of JSONL. Raises BadDocument."""
        return self.document(parse_line(line, f"an object with {self.needed()}"))

    def needed(self):
        return NEEDED.replace("`text`", f"`{self.text_key}`")

    def document(self, record):
        """Raises BadDocument."""
        if not isinstance(record, dict):
            raise BadDocument(f"a JSON {json_name(record)}; an object is needed, with {self.needed()}")
        parts, whole = self.parts(record)
        if self.train_on_prompt:
            parts = [(text, True) for text, _ in parts]
        return Document(tuple(parts), whole)

    def parts(self, record):
        if self.text_key != "text" and self.text_key in record:
            return [(string(record, self.text_key), True)], False
        if "messages" in record:
            return self.conversation(record["messages"]), True
        if "instruction" in record and "output" in record:
            return [(alpaca_prompt(record), False), (string(record, "output"), True)], False
        if "prompt" in record and "response" in record:
            return [(string(record, "prompt"), False), (string(record, "response"), True)], False
        if self.text_key in record:
            return [(string(record, self.text_key), True)], False
        keys = ", ".join(sorted(map(str, record))[:8]) or "no keys"
        raise BadDocument(f"the record has {keys}; it needs {self.needed()}")

    def conversation(self, messages):
        if self.chat_template is None:
            raise BadDocument(
                "the record has `messages`, but the model has no chat template (chat_template in "
                "its tokenizer_config.json, or chat_template.jinja); add it there, or give the "
                "records as `prompt` and `response`"
            )
        messages = checked_messages(messages)
        if self.train_on_prompt:
            return [(self.chat_template.render(messages, False), True)]
        return self.chat_template.parts(messages)


def alpaca_prompt(record):
    values = {"instruction": string(record, "instruction"), "input": ""}
    if record.get("input") is not None:
        values["input"] = string(record, "input")
    template = ALPACA_WITHOUT_INPUT if values["input"] == "" else ALPACA_WITH_INPUT
    return template.format(**values)


def string(record, key):
    value = record[key]
    if not isinstance(value, str):
        raise BadDocument(f"`{key}` is a JSON {json_name(value)}; it must be a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadDocument(
            f"`{key}` holds half a surrogate pair at character {error.start}; remove it"
        ) from error
    return value


def checked_messages(messages):
    """The conversation, if each of its turns has the strings role and content."""
    if not isinstance(messages, list) or not messages:
        raise BadDocument("`messages` must be a list of at least one {role, content}")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise BadDocument(f"`messages[{index}]` must be an object with role and content")
        string(message, "role")
        string(message, "content")
    return messages


def parse_line(line, needed="an object"):
    """A line of JSONL as a record. Raises BadDocument, which says what is needed."""
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadDocument(
            f"not UTF-8: byte {error.start} of the line is 0x{line[error.start]:02x}; "
            "convert it to UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"not JSON ({error}); each line must be {needed}") from error


def json_name(value):
    names = {dict: "object", list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")
