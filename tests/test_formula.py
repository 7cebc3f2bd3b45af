import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import expressions

from evojax_art.language.formula import (
    Expression,
    FormulaError,
    Node,
    constant_node,
    parse,
    subexpressions,
    to_text,
)
from evojax_art.language.ops import BY_NAME
from evojax_art.runtime.errors import InputError

SMALLEST = 2.0**-149  # the smallest subnormal float32
LARGEST = (2 - 2.0**-23) * 2.0**127


def constant_bits(expression: Expression) -> list[bytes]:
    # Equality of expressions takes -0.0 for 0.0.
    return [struct.pack("<4d", *node.constant) for node in expression.postfix if node.constant]


def test_lenient_parsing_reads_what_the_original_reads(gart):
    cases = json.loads((gart / "parse_cases_public.json").read_text())
    assert cases
    for case in cases:
        assert to_text(parse(case["input"], lenient=True)) == case["canonical"], case["input"]


@pytest.mark.parametrize("name", ["archive_even", "runlog_odd"])
def test_recorded_formulas_are_canonical_and_have_the_listed_sizes(gart, name):
    records = json.loads((gart / f"{name}.json").read_text())
    assert records
    for record in records:
        expression = parse(record["formula"])
        assert to_text(expression) == record["formula"]
        assert parse(record["formula"], lenient=True) == expression
        sizes = {
            "nodes": len(expression),
            "leaves": sum(node.op.arity == 0 for node in expression.postfix),
            "depth": expression.depth,
            "distinct_subtrees": len(set(subexpressions(expression))),
        }
        assert sizes == {key: record[key] for key in sizes}, record["formula"]


@given(expressions())
def test_text_reads_back_equal(expression):
    text = to_text(expression)
    for lenient in (False, True):
        again = parse(text, lenient=lenient)
        assert again == expression
        assert constant_bits(again) == constant_bits(expression)


@given(expressions())
def test_case_and_brackets_carry_no_meaning(expression):
    text = to_text(expression)
    for variant in (text.upper(), text.lower(), text.replace("(", " ").replace(")", "\n")):
        assert parse(variant) == expression


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -1e-4, SMALLEST, -SMALLEST, LARGEST, 1e9, 1e-5])
def test_constants_of_any_magnitude_survive_as_text(value):
    expression = Expression((constant_node((value, 1, -value, 0)),))
    assert constant_bits(parse(str(expression))) == constant_bits(expression)


def test_constants_are_rounded_to_float32():
    assert parse("( q 0.1 16777217 0 0 )").root.constant == (0.10000000149011612, 16777216, 0, 0)


@pytest.mark.parametrize("name", BY_NAME)
def test_names_ignore_case_and_read_plus_for_underscore(name):
    operands = "1 2 3 4" if name == "q" else "x " * BY_NAME[name].arity
    expected = parse(f"{name} {operands}")
    assert expected.root.op is BY_NAME[name]
    for variant in (name.upper(), name.lower(), name.replace("_", "+"), name.replace("+", "_")):
        assert parse(f"{variant} {operands}") == expected


def test_operands_are_the_subtrees_from_left_to_right():
    expression = parse("( - ( exp x ) ( / y i ) )")
    assert [str(operand) for operand in expression.operands] == ["( exp x )", "( / y i )"]
    assert parse("x").operands == ()


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("( isine x )", 1, 3, "unknown operator 'isine'; did you mean isin"),
        ("( exp x+yi )", 1, 7, "did you mean x_iy"),
        ("( exp @@@@ )", 1, 7, "unknown operator '@@@@'"),
        ("( + x\n   zzz )", 2, 4, "unknown operator 'zzz'"),
        ("( + x )", 1, 7, "missing operand: '+' takes 2, found 1"),
        ("( exp )", 1, 7, "missing operand: 'exp' takes 1, found 0"),
        ("( exp ( ) )", 1, 9, "missing operand: 'exp' takes 1, found 0"),
        ("+ x", 1, 4, "missing operand: '+' takes 2, found 1"),
        ("( * x ( exp", 1, 12, "missing operand: 'exp' takes 1, found 0"),
        ("( + x\n  ( exp\n\n", 2, 8, "missing operand: 'exp'"),
        ("x y", 1, 3, "text left over after a complete formula: 'y'"),
        ("( exp x ) )", 1, 11, "text left over after a complete formula: ')'"),
        ("( exp x ) exp", 1, 11, "text left over after a complete formula: 'exp'"),
        ("( x y )", 1, 5, "expected `)` here, found 'y'"),
        ("( exp x y )", 1, 9, "expected `)` here, found 'y'"),
        ("( + x y", 1, 1, "never closed"),
        ("( + ( exp x y )", 1, 13, "expected `)` here, found 'y'"),
        ("x )", 1, 3, "text left over"),
        (")", 1, 1, "`)` without `(`"),
        ("()", 1, 2, "empty brackets"),
        ("( ( ) )", 1, 5, "empty brackets"),
        ("", 1, 1, "no formula here"),
        ("  \n ", 1, 1, "no formula here"),
        ("(", 1, 2, "no formula here"),
        ("( q 1 2 3 )", 1, 11, "`q` needs four finite numbers"),
        ("q 1 2 3", 1, 8, "`q` needs four finite numbers"),
        ("( q 1 x 3 4 )", 1, 7, "`q` needs four finite numbers"),
        ("( q 1 2 nan 4 )", 1, 9, "`q` needs four finite numbers"),
        ("( q inf 2 3 4 )", 1, 5, "`q` needs four finite numbers"),
        ("( q 1 2 3 1e39 )", 1, 11, "`q` needs four finite numbers"),
        ("( q 1 2 3 4 5 )", 1, 13, "expected `)` here, found '5'"),
        ("padding", 1, 1, "unknown operator 'padding'"),
    ],
)
def test_strict_errors_name_the_place(text, line, column, message):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert caught.value.message.startswith(f"formula, line {line}, column {column}: ")
    shown, caret = caught.value.excerpt.split("\n")
    assert caret == " " * (column - 1) + "^"
    assert shown == (text.split("\n")[line - 1] if text else "")


def test_caret_of_a_long_line_stands_under_the_place():
    with pytest.raises(FormulaError) as caught:
        parse("exp " * 500 + "wrong " + "x " * 500)
    shown, caret = caught.value.excerpt.split("\n")
    assert len(shown) <= 80
    assert shown[caret.index("^") :].startswith("wrong x ")
    assert "column 2001" in caught.value.message


WORDS = ["(", ")", "q", "Q", "_", "+", "1", "2", "-1e-3", "nan", "1e99", "what", *BY_NAME]


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_lenient_parsing_never_fails(text):
    expression = parse(text, lenient=True)
    assert parse(to_text(expression)) == expression


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_strict_parsing_fails_only_with_an_input_error(text):
    try:
        expression = parse(text)
    except FormulaError as error:
        shown, caret = error.excerpt.split("\n")
        assert len(caret) <= len(shown) + 1
    else:
        assert parse(text, lenient=True) == expression


@pytest.mark.parametrize(
    ("levels", "before", "leaf", "behind"),
    [
        (50_000, "exp ", "x", ""),
        (50_000, "( exp ", "x", " )"),
        (50_000, "+ ", "x", " x"),
        (50_000, "+ x ", "x", ""),
    ],
    ids=["unary", "brackets", "left", "right"],
)
def test_depth_has_no_limit(levels, before, leaf, behind):
    text = before * (levels - 1) + leaf + behind * (levels - 1)
    expression = parse(text)
    assert expression.depth == levels
    assert parse(text, lenient=True) == expression
    assert parse(to_text(expression)) == expression


def test_equal_formulas_are_one_set_element():
    assert len({parse("( exp x )"), parse("EXP X"), Expression((Node(BY_NAME["x"]),))}) == 2


def test_complaints_hold_nothing_that_a_terminal_obeys():
    with pytest.raises(FormulaError) as complaint:
        parse("( exp x )\x1b[2J ( nope\t\x07 )")
    assert all(letter.isprintable() or letter == "\n" for letter in str(complaint.value))
