"""Random expressions for property tests."""

from collections.abc import Sequence

from hypothesis import strategies as st

from evojax_art.language.formula import Expression, Node, constant_node
from evojax_art.language.ops import BY_NAME, Op

ALL_OPS = tuple(BY_NAME.values())
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def nodes(ops: Sequence[Op], components: st.SearchStrategy[float]) -> st.SearchStrategy[Node]:
    constants = st.builds(constant_node, st.tuples(*[components] * 4))
    others = st.sampled_from([op for op in ops if op.name != "q"]).map(Node)
    return constants | others if BY_NAME["q"] in ops else others


@st.composite
def expressions(
    draw,
    max_length: int = 63,
    ops: Sequence[Op] = ALL_OPS,
    components: st.SearchStrategy[float] = FLOATS,
) -> Expression:
    """Any expression over `ops`; these must have an op of each arity."""
    drawn = draw(st.lists(nodes(ops, components), max_size=max_length // 2))
    binaries = [op for op in ops if op.arity == 2]
    leaf = next(op for op in ops if op.arity == 0 and not op.structural)
    postfix: list[Node] = []
    height = 0
    for node in drawn:  # an operator without operands to take is left out
        if node.op.arity <= height:
            postfix.append(node)
            height += 1 - node.op.arity
    if not postfix:
        return Expression((Node(leaf),))
    closing = st.lists(st.sampled_from(binaries), min_size=height - 1, max_size=height - 1)
    return Expression((*postfix, *map(Node, draw(closing))))
