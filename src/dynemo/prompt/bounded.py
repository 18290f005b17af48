"""The Jinja environment in which templates run in this process: it counts what a rendering does.

A template is a program that came with the model, and it may loop for hours or ask for a string of
10 GB. Here each rendering has a `Budget`. Each block of statements, call, filter, operator and
comparison takes from it before it runs, and a long value takes more. So nothing runs for long:

- Loops and macros pay for each turn.
- What prints, joins or compares a nested value pays for all that it holds.
- What may give far more than it takes (`'a' * n`, `center(n)`) is computed only for small results.
- Python methods and filters that stand in no table here are not called at all.

A rendering that needs more raises RenderTooLong. It is not refused: `child.py` renders the same
conversation again, in a process with limits that the system enforces. A rendering that stays
within its budget gives the text that Jinja's own sandbox gives.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from types import BuiltinMethodType, GeneratorType
from typing import Any, cast

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import _PassArg, pass_context

from dynemo.limits import RENDER_STEPS
from dynemo.prompt import budget as prices
from dynemo.prompt.budget import Budget, Price

_TEXT = 10
_Function = Callable[..., Any]


class _Context(Context):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = Budget(RENDER_STEPS)

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        context = super().derived(locals)
        assert isinstance(context, _Context)
        context.budget = self.budget
        return context


class _Generator(CodeGenerator):
    """Writes a step before each block of statements, and around what the environment cannot see."""

    def write_commons(self) -> None:
        super().write_commons()
        for name in ("step", "take", "walk", "contains"):
            self.writeline(f"{name} = context.budget.{name}")

    def blockvisit(self, nodes_: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes_)
        printed = sum(
            len(data.data)
            for node in body
            if isinstance(node, nodes.Output)
            for data in node.nodes
            if isinstance(data, nodes.TemplateData)
        )
        self.writeline(f"step({1 + (printed >> _TEXT)})")
        super().blockvisit(body, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:  # items that it drops never reach the body
            counted = nodes.ContextReference(lineno=node.lineno)
            node.test = nodes.And(counted, node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_ContextReference(self, _node: nodes.ContextReference, _frame: Frame) -> None:
        self.write("step()")  # no template can name the context: only `visit_For` does

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        super()._output_child_pre(node, frame, finalize)
        self.write("(" if isinstance(node, nodes.Const) else "walk(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")
        super()._output_child_post(node, frame, finalize)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        self.write("take(")
        super().visit_Add(node, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        if frame.eval_ctx.volatile:
            self.write("(markup_join if context.eval_ctx.volatile else str_join)((")
        else:
            self.write("markup_join((" if frame.eval_ctx.autoescape else "str_join((")
        for part in node.nodes:
            self._walked(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("walk(")  # it can become a key, and then Python hashes all of it
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("take(")
        super().visit_Getitem(node, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        operation = node.ops[0]
        if len(node.ops) == 1 and operation.op in ("in", "notin"):
            self.write("contains(" if operation.op == "in" else "(not contains(")
            self.visit(node.expr, frame)
            self.write(", ")
            self.visit(operation.expr, frame)
            self.write(")" if operation.op == "in" else "))")
            return
        consts = [side for side in (node.expr, operation.expr) if isinstance(side, nodes.Const)]
        if consts and len(node.ops) == 1:
            super().visit_Compare(node, frame)  # nothing inside a nested value equals it
            return
        self.write("(")
        self._walked(node.expr, frame)
        for operation in node.ops:
            self.write(f" {operators[operation.op]} ")
            self._walked(operation.expr, frame)
        self.write(")")

    def _walked(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("walk(")
        self.visit(node, frame)
        self.write(")")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which each rendering has a `Budget`."""

    code_generator_class = _Generator
    context_class = _Context
    intercepted_binops = frozenset({"*", "%", "**"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._functions: frozenset[Any] = frozenset()

    def set_prices(self, functions: Iterable[str]) -> None:
        """Puts prices on filters, tests and the named globals. Call it once all of them are set."""
        for name, function in self.filters.items():
            price = prices.FILTERS.get(name, prices.refuse)
            if price is not prices.free:
                self.filters[name] = _priced(cast(_Function, function), price)
        for name in prices.COMPARING_TESTS:
            self.tests[name] = _priced(cast(_Function, self.tests[name]), prices.walk_all)
        self._functions = frozenset(self.globals[name] for name in functions)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: Budget = context.budget  # type: ignore[attr-defined]
        if operator == "%" and isinstance(left, str):
            prices.percent(budget, left, [right])
        elif operator == "*":
            prices.product(left, right)
        elif operator == "**":
            prices.power(left, right)
        return budget.take(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = __context.budget  # type: ignore[attr-defined]
        if type(__obj) is BuiltinMethodType:
            prices.price_method(budget, __obj, args)
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return budget.take(__obj(*args, **kwargs))
        prices.price_call(budget, __obj, args, __self._functions)
        return budget.take(super().call(__context, __obj, *args, **kwargs))


def _priced(function: _Function, price: Price) -> _Function:
    """Returns a filter or a test that pays before it runs."""
    passed = _PassArg.from_obj(function)

    @wraps(function)
    def priced(context: _Context, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        budget.step()
        price(budget, value, (*args, *kwargs.values()))
        if passed is None:
            result = function(value, *args, **kwargs)
        else:
            given = _given(context, passed)
            result = function(given, value, *args, **kwargs)
        return _counted(budget, result) if type(result) is GeneratorType else budget.take(result)

    return pass_context(priced)


def _given(context: _Context, passed: _PassArg) -> Any:
    match passed:
        case _PassArg.context:
            return context
        case _PassArg.eval_context:
            return context.eval_ctx
        case _:
            return context.environment


def _counted(budget: Budget, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        yield budget.walk(item)
