"""Text that obeys or deceives what shows it, unless it is made plain."""

from __future__ import annotations

HOSTILE = (
    "\x1b]0;a title\x07\x1b[31mred \x9b2J\u202e[click](javascript:alert(1)) <img src=x onerror=alert(1)> "
    "![p](http://x/p) `code` `` ``` | *b* [/red] [bold]x https://evil.org www.evil.org <!channel> me@x.org "
    "&lt; <script>\r\n# head\n- item\n~~~\n\n    indented\n***\n1. one\n|a|b|\n|-|-|"
)
