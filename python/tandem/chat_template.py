"""The model's own chat template: a conversation to text, and which of it the assistant says.

Rendered as transformers renders it (`apply_chat_template`: a sandboxed Jinja environment with
trim_blocks and lstrip_blocks, `raise_exception`, `tojson` without escapes, and the tag
`generation`), so that training sees what a chat client sends. Only `strftime_now` is not there in
training: the same data must give the same tokens tomorrow. The assistant's part of turn i is what the
conversation gains over its beginning with add_generation_prompt: a template that writes a
conversation's beginning otherwise than on its own is refused.
"""

import functools
import json
import os

from tandem.violations import BadDocument


class ChatTemplate:
    def __init__(self, source, variables):
        """variables: bos_token and other names that the template reads. Compiled when used."""
        self.source, self.variables = source, variables

    @functools.cached_property
    def template(self):
        import jinja2

        try:
            return environment().from_string(self.source)
        except jinja2.TemplateError as error:
            raise BadDocument(f"the model's chat template is not valid ({error})") from error

    def render(self, messages, add_generation_prompt, **more):
        """more: further names that the template may read. Raises BadDocument."""
        import jinja2

        template = self.template
        try:
            return template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **more,
                **self.variables,
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise BadDocument(f"the model's chat template refuses the messages ({error})") from error

    def parts(self, messages):
        """[(text, trained)] that join to the rendered conversation. Raises BadDocument."""
        whole, parts, done = self.render(messages, False), [], 0
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:index], True) if index else ""
            until = self.render(messages[: index + 1], False)
            if not (whole.startswith(until) and until.startswith(before) and len(before) >= done):
                raise BadDocument(
                    f"the model's chat template writes messages[{index}] differently when more "
                    "turns follow; give such records as `prompt` and `response`, or set "
                    "data.train_on_prompt"
                )
            parts += [(whole[done : len(before)], False), (until[len(before) :], True)]
            done = len(until)
        if not parts:
            raise BadDocument("`messages` has no turn of the role assistant: nothing to train")
        return [(text, trained) for text, trained in [*parts, (whole[done:], False)] if text]


def environment():
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """{% generation %} ... {% endgeneration %}: its content, as it is."""

        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    return made


def template_source(folder, settings):
    """The template's text: chat_template.jinja, or of tokenizer_config.json; None without one."""
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            return file.read()
    value = settings.get("chat_template")
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if type(entry) is dict}
        value = named.get("default")
    return value if isinstance(value, str) else None


def token_variables(settings):
    """bos_token, eos_token, ... as strings."""
    variables = {}
    for name, value in settings.items():
        if not name.endswith("_token"):
            continue
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            variables[name] = value
    return variables
