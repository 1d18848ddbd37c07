"""What is wrong with a user's data, collected so that all of it is said at once."""

MAX_PER_FIELD = 5


class BadDocument(Exception):
    """One document that cannot be used; reading can go on behind it."""


class BadFile(Exception):
    """The rest of the file cannot be read."""


class DataRefused(Exception):
    """The user's data cannot be used; `violations` is a list of (field path, message)."""

    def __init__(self, violations):
        super().__init__("; ".join(f"{field}: {message}" for field, message in violations))
        self.violations = violations


class Violations:
    def __init__(self):
        self.found = []

    def add(self, field, message):
        """Keeps at most MAX_PER_FIELD per field: a file with a million bad lines says five."""
        if sum(1 for known, _ in self.found if known == field) < MAX_PER_FIELD:
            self.found.append((field, message))

    def full(self, field):
        return sum(1 for known, _ in self.found if known == field) >= MAX_PER_FIELD

    def names(self, field):
        return any(known == field for known, _ in self.found)

    def raise_if_any(self):
        if self.found:
            raise DataRefused(self.found)
