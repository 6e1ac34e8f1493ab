"""What is wrong with the options on a command line, in one line that names the option."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from functools import partial

from tyro._errors import (  # underscored, and documented as the way to report errors oneself
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    ParseErrorHook,
    UnrecognizedArgs,
)

from parteq.datasets.errors import DataError

__all__ = ["refuse_options"]

_NO_NUMBER = {"int()": "is no whole number", "float": "is no number"}
"""What Python's complaint about a text has in it, and what to say instead."""


def refuse_options(options: Collection[str]) -> ParseErrorHook:
    """What `tyro` is to call of options that it cannot take.

    Args:
        options: that the command has, with their dashes.

    Raises:
        DataError: when called, with the option and the reason.
    """
    return partial(_refuse, options)


def _refuse(options: Collection[str], event: ParseErrorEvent) -> None:
    see = f"(see {event.prog} --help)"
    match event:
        case MissingArgs(unrecognized_tokens=[_, *_] as tokens) | UnrecognizedArgs(tokens=tokens):
            option, reason = _unknown(tokens, options)
            raise DataError(option, f"{reason} {see}")
        case MissingArgs(missing_arguments=missing):
            raise DataError(", ".join(each.arg.lowered.name_or_flags[-1] for each in missing), f"must be given {see}")
        case InvalidChoice(argument=argument, value=value, choices=choices):
            known = [choice for choice in choices if choice != str(None)]
            reason = f"must be {', '.join(known[:-1])} or {known[-1]} {see}"
            raise DataError(f"{argument.lowered.name_or_flags[-1]} {value}", reason)
        case BadValue(argument=argument):
            raise DataError(argument.lowered.name_or_flags[-1], f"needs a value {see}")
        case InstantiationFailure(argument=argument, message=message) if argument is not None:
            quoted = re.search(r"'([^']*)'\W*$", message)
            plain = next((reason for sign, reason in _NO_NUMBER.items() if sign in message), None)
            option = argument.lowered.name_or_flags[-1]
            if plain is not None and quoted is not None:
                raise DataError(f"{option} {quoted[1]}", f"{plain} {see}")
            raise DataError(option, f"{' '.join(message.split())} {see}")
        case _:
            pass  # tyro has its own words for what is still to come


def _unknown(tokens: Sequence[str], options: Collection[str]) -> tuple[str, str]:
    """The first word that was not understood, an option if there is one, and the reason."""
    first = next((token for token in tokens if token.startswith("-")), tokens[0])
    if not first.startswith("-"):
        return first, "belongs to no option"
    close = difflib.get_close_matches(first.partition("=")[0], options, n=1)
    return first, f"is no option{f': {close[0]}?' if close else ''}"
