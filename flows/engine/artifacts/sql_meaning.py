"""Whether two texts of a model say the same to the warehouse: other comments, spaces, cases of words or parentheses.

A wrong yes would leave a table as it is that had to be built, so each doubt is a no. Jinja has to be the same, tag by
tag, as what it renders is not known here; dbt compiles nothing for this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.tokenizer_core import Token

# What sqlglot calls the dialect of dbt's adapters, where it has another name for it.
_DIALECTS = {"sqlserver": "tsql", "fabric": "tsql", "synapse": "tsql", "athena": "athena", "spark": "spark"}
# Blocks whose text is kept in a variable or handed to a macro, where a space can matter.
_KEEPING = frozenset({"call", "filter", "macro", "endset"})
_MARK = "jinja__"
_NEW_LINE = " new_line__ "
_RENDERS_NOTHING = "config"
# What stands behind these may be on the same line or on the next.
_RENDERS_A_NAME_AT_MOST = frozenset({"ref", "source", _RENDERS_NOTHING})
# A word right behind one of these gives a column its name, and databases that do not mind a name's case still show it.
_BEFORE_A_NAME = frozenset({"ALIAS", "VAR", "IDENTIFIER", "R_PAREN", "R_BRACKET", "NUMBER", "STRING", "END"})
# Words of the language that name nothing without quotes, wherever they stand.
_RESERVED = frozenset(
    {
        *("SELECT", "DISTINCT", "ALL", "ALIAS", "FROM", "WHERE", "GROUP_BY", "HAVING", "QUALIFY", "ORDER_BY", "LIMIT"),
        *("JOIN", "LEFT", "RIGHT", "INNER", "FULL", "OUTER", "CROSS", "LATERAL", "ON", "USING", "WITH"),
        *("AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "LIKE", "ILIKE", "EXISTS"),
        *("CASE", "WHEN", "THEN", "ELSE", "END", "UNION", "EXCEPT", "INTERSECT"),
        *("OVER", "PARTITION_BY", "ROWS", "ASC", "DESC"),
    }
)


@dataclass(frozen=True)
class _Masked:
    """A template whose tags are words: what it is as SQL, and what each of the tags says.

    Attributes:
        renders_names: each tag renders the name of a relation, or nothing at all.
    """

    sql: str
    tags: tuple[tuple[str, ...], ...]
    renders_names: bool


def says_the_same(then: str, now: str, adapter: str) -> bool:
    """Return whether two texts of one SQL model or test come to the same rows, whatever their Jinja renders."""
    from sqlglot.errors import SqlglotError

    dialect = _DIALECTS.get(adapter, adapter)
    before, after = _masked(then), _masked(now)
    if before is None or after is None or before.tags != after.tags:
        return False
    try:
        old, new = _words(before.sql, dialect), _words(after.sql, dialect)
        if old is None or new is None:
            return False
        if old == new:
            return True
        is_by_parentheses = [word for word in old if word[1] not in "()"] == [
            word for word in new if word[1] not in "()"
        ]
        return is_by_parentheses and before.renders_names and _is_same_tree(before.sql, after.sql, dialect)
    except (SqlglotError, ValueError, RecursionError):
        return False


def _masked(text: str) -> _Masked | None:
    """Return a template with a word in place of each tag; None where what stands between tags may be kept as text."""
    from jinja2 import Environment, TemplateSyntaxError

    written: list[str] = []
    tags: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    is_comment, may_end_a_line, renders_names = False, False, True
    try:
        for _, kind, value in Environment(autoescape=True).lex(text):
            if kind in ("raw_begin", "raw_end") or _MARK in value:
                return None
            if kind in ("comment_begin", "comment_end"):
                is_comment = kind == "comment_begin"
            elif is_comment or kind == "whitespace":
                continue
            elif kind in ("variable_begin", "block_begin"):
                inside = [value.rstrip("-+")]
            elif kind in ("variable_end", "block_end") and inside is not None:
                opening, called = inside[0], "".join(inside[1:2])
                if opening == "{%" and called in _KEEPING:
                    return None
                renders_names = renders_names and opening == "{{" and called in _RENDERS_A_NAME_AT_MOST
                may_end_a_line = opening == "{{" and called not in _RENDERS_A_NAME_AT_MOST
                tags.append(tuple(inside))
                inside = None
                written.append("" if called == _RENDERS_NOTHING and opening == "{{" else f"{_MARK}{len(tags)}__")
            elif inside is not None:
                inside.append(value)
            else:
                # What a macro renders can end in a comment, which the line's end ends.
                is_next_line = may_end_a_line and re.match(r"\s*\n", value) is not None
                may_end_a_line = may_end_a_line and not value.strip()
                written.append(f"{_NEW_LINE if is_next_line else ''}{value}")
    except TemplateSyntaxError:
        return None
    # One that is not closed is dbt's to refuse.
    return None if inside is not None else _Masked("".join(written), tuple(tags), renders_names)


def _words(sql: str, dialect: str) -> list[tuple[str, str]] | None:
    """Return the words of a query, those that mean the same written the same; None where a tag is in a comment."""
    from sqlglot.dialects.dialect import Dialect, NormalizationStrategy

    known = Dialect.get_or_raise(dialect)
    minds_case = known.normalization_strategy == NormalizationStrategy.CASE_SENSITIVE
    # The database itself writes all names without quotes the same.
    is_folded = known.normalization_strategy in (NormalizationStrategy.LOWERCASE, NormalizationStrategy.UPPERCASE)
    tokens = known.tokenize(sql)
    if any(_MARK in comment for token in tokens for comment in token.comments):
        return None
    words: list[tuple[str, str]] = []
    before = ""
    for token in tokens:
        kind = token.token_type.name
        words.append((kind, _folded(token, minds_case, is_folded or before not in _BEFORE_A_NAME)))
        before = kind
    return words


def _folded(token: Token, minds_case: bool, is_no_name: bool) -> str:
    kind, text = token.token_type.name, token.text
    if kind in _RESERVED:
        return " ".join(text.lower().split())
    is_plain_name = kind == "VAR" and _MARK not in text
    return text.lower() if is_plain_name and is_no_name and not minds_case else text


def _is_same_tree(then: str, now: str, dialect: str) -> bool:
    """Return whether two queries whose words differ in parentheses alone are one, redundant ones left out."""
    import sqlglot

    old, new = (_without_parentheses(sqlglot.parse_one(text, dialect=dialect)) for text in (then, now))
    return old.sql(dialect=dialect, comments=False) == new.sql(dialect=dialect, comments=False)


def _without_parentheses(tree: exp.Expr) -> exp.Expr:
    """Take out parentheses around one value, around another pair, and around the whole of a condition or a column."""
    from sqlglot import exp

    simple = (exp.Column, exp.Literal, exp.Paren, exp.Null, exp.Boolean, exp.Cast, exp.Anonymous, exp.AggFunc)
    whole = (exp.Where, exp.Having, exp.Qualify, exp.Alias)

    def mended(node: exp.Expr) -> exp.Expr:
        # `(a).b` is a field of a column, and `a.b` a column of a table.
        if not isinstance(node, exp.Paren) or isinstance(node.parent, exp.Dot):
            return node
        is_whole = isinstance(node.parent, whole) and not isinstance(node.this, exp.Query)
        return node.this if is_whole or isinstance(node.this, simple) else node

    for _ in range(20):
        before = tree.sql()
        tree = tree.transform(mended)
        if tree.sql() == before:
            break
    return tree
