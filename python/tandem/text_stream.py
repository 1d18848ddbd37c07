"""Token ids to text while they come: a character is given once its bytes are whole."""

CONTEXT = 8  # ids of the prompt that the first written token is decoded behind


class TextStream:
    def __init__(self, decode, before):
        """decode: ids to text. before: the prompt's ids, whose text is not given again."""
        self.decode, self.ids = decode, list(before[-CONTEXT:])
        self.begin, self.given = 0, len(self.ids)

    def add(self, token):
        """What the token completes; "" while a character waits for its other bytes."""
        self.ids.append(token)
        return self._piece(final=False)

    def rest(self):
        """What is left at the end, broken characters included."""
        return self._piece(final=True)

    def _piece(self, final):
        known = self.decode(self.ids[self.begin : self.given])
        text = self.decode(self.ids[self.begin :])
        if len(text) <= len(known) or (text.endswith("\ufffd") and not final):
            return ""
        self.begin, self.given = self.given, len(self.ids)
        return text[len(known) :]
