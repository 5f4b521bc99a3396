"""The former place of `sess_ray.access`."""

from __future__ import annotations

from sess_ray.access import (
    Access,
    is_passing,
    one_line,
    open_filesystem,
    parse_options,
    patiently,
    persistent,
    public,
    public_command,
    public_option,
    public_settings,
    public_text,
    read_files,
    shown,
    use,
)

__all__ = [
    "Access",
    "is_passing",
    "one_line",
    "open_filesystem",
    "parse_options",
    "patiently",
    "persistent",
    "public",
    "public_command",
    "public_option",
    "public_settings",
    "public_text",
    "read_files",
    "shown",
    "use",
]
