"""The model's own tokenizer.json through the `tokenizers` library, with its BOS and EOS."""

import json
import os

from tandem.chat_template import ChatTemplate, template_source, token_variables
from tandem.token_shards import sha256_of

FIELD = "model.path"


DEFAULT_MAX_LENGTH = 2048


class ModelTokenizer:
    """Documents to ids. bos, eos: ids around each document, or None. vocab_size: the model's.

    max_length: the longest sequence that the model is made for. chat_template: None without one.
    """

    def __init__(self, folder, violations):
        """Raises DataRefused with everything that is wrong with the folder."""
        import tokenizers

        self.library = f"tokenizers {tokenizers.__version__}"
        path = os.path.join(folder, "tokenizer.json")
        if not os.path.isfile(path):
            violations.add(FIELD, missing_tokenizer(folder))
        config = read_object(folder, "config.json", violations, required=True)
        settings = read_object(folder, "tokenizer_config.json", violations, required=False)
        violations.raise_if_any()
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # the library raises plain Exception
            violations.add(
                FIELD, f"{path} is not a tokenizer ({error}); copy it again from the model"
            )
            violations.raise_if_any()
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocab_size = config.get("vocab_size")
        if type(self.vocab_size) is not int or self.vocab_size < 1:
            violations.add(
                FIELD, f"{folder}/config.json: vocab_size is {self.vocab_size!r}; must be above 0"
            )
        self.bos = self.special("bos", config, settings)
        self.eos = self.special("eos", config, settings)
        self.sha256 = sha256_of(path)
        self.max_length = longest(config, settings)
        source = template_source(folder, settings)
        self.chat_template = source and ChatTemplate(source, token_variables(settings))
        violations.raise_if_any()

    def special(self, name, config, settings):
        """The id of BOS or EOS: tokenizer_config.json names the token, config.json the id.

        add_bos_token false: none.
        """
        if settings.get(f"add_{name}_token") is False and name == "bos":
            return None
        token = settings.get(f"{name}_token")
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return self.tokenizer.token_to_id(token)
        if f"{name}_token" in settings:
            return None
        value = config.get(f"{name}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        return value if type(value) is int else None

    def encode_batch(self, texts):
        """Ids of each text, without anything around them."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def edges(self):
        """The ids before and behind a document: two lists of at most one."""
        return [] if self.bos is None else [self.bos], [] if self.eos is None else [self.eos]

    def token(self, token_id):
        return self.tokenizer.id_to_token(token_id)


def longest(config, settings):
    """As lm-evaluation-harness finds it: the model's positions, the tokenizer's word, or 2048."""
    for value in (config.get("max_position_embeddings"), settings.get("model_max_length")):
        if type(value) is int and 1 < value < 10**9:
            return value
    return DEFAULT_MAX_LENGTH


def missing_tokenizer(folder):
    if os.path.isfile(os.path.join(folder, "tokenizer.model")):
        return (
            f"{folder} has tokenizer.model but no tokenizer.json; convert it once, where "
            'transformers and sentencepiece are installed: python -c "from transformers import '
            "AutoTokenizer as A; d='MODEL_DIR'; A.from_pretrained(d, use_fast=True)"
            '.save_pretrained(d)"'
        )
    return f"{folder} has no tokenizer.json; copy the tokenizer of the model there"


def read_object(folder, name, violations, required):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        if required:
            violations.add(FIELD, f"{path} is not there; a Hugging Face model directory is needed")
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError) as error:
        violations.add(FIELD, f"{path} cannot be read as JSON ({error})")
        return {}
    if not isinstance(value, dict):
        violations.add(FIELD, f"{path} is not a JSON object")
        return {}
    return value
