"""Where a config departs from what all published models of its family have: one side shows that."""

from __future__ import annotations

from porter.recognition.identify import Identity
from porter.verification.known_mistakes import KnownMistakes
from porter.verification.same_value import same_value


def departures(identity: Identity, known: KnownMistakes) -> tuple[str, ...]:
    """A note for each hyperparameter that no published model has. Another model may have it on purpose."""
    if not identity.raw:
        # No config says anything; what is assumed in its place is said elsewhere.
        return ()
    file = (identity.words or identity.dialect).config.file
    notes = []
    for name, values in known.published.get(identity.family.name, {}).items():
        found = identity.hyperparameters.get(name)
        if not any(same_value(value, found) for value in values):
            expected = " or ".join(str(value) for value in values)
            notes.append(
                f"{file}: {name} is {found}; all published {identity.family.name} models have {expected}"
            )
    return tuple(notes)
