"""What a client lets an answer be: `Accept` (RFC 9110 §12.5.1)."""

from collections.abc import Iterable


def accepts(media_type: str, headers: Iterable[str]) -> bool:
    """Whether these `Accept` headers of one request let it be this. Of the ranges that fit, the most specific one decides; where none is
    named, anything goes. A range's own parameters are not looked at, only its quality: it is refused where all its mentions are."""
    quality: dict[str, bool] = {}
    for part in ",".join(headers).lower().split(","):
        if part.strip():
            media_range, *parameters = part.split(";")
            name = media_range.strip()
            quality[name] = quality.get(name, False) or not any(map(_is_zero, parameters))
    kind, _, _ = media_type.partition("/")
    fitting = (quality[name] for name in (media_type, f"{kind}/*", "*/*") if name in quality)
    return next(fitting, not quality)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().strip("0") in {"", "."}
