"""Every setting is described, bounded, and the same setting in its nested, flat and dotted form."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from hscmae.config import PRESETS, HSCMAEConfig, Section, Training, build, dotted_names, flatten, merge, nest
from hscmae.errors import InputError
from hscmae.methods import METHODS

MODELS = {name: method.Config for name, method in METHODS.items()}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def leaves(model):
    """(dotted name, field) of every setting."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from ((f"{name}.{leaf}", field) for leaf, field in info.annotation.model_fields.items())
        else:
            yield name, info


LEAVES = dict(leaves(HSCMAEConfig))


def bounds(field):
    """Which of ge, gt, le, lt a field has."""
    return {key: getattr(m, key) for m in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}


def values(field):
    """Values that a field accepts."""
    kind, limit = field.annotation, bounds(field)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind is bool:
        return st.booleans()
    if kind is str:
        return st.sampled_from(["auto", "cpu", "cuda:1"])
    lowest = limit.get("ge", limit.get("gt", 0))
    highest = limit.get("le", limit.get("lt", 10_000))
    if kind is int:
        return st.integers(lowest + ("gt" in limit), highest - ("lt" in limit))
    return st.floats(lowest, highest, exclude_min="gt" in limit, exclude_max="lt" in limit)


def consistent(flat):
    one_treatment = not (flat["affinity.mask_pair"] and flat["affinity.pair_share"] > 0)
    return one_treatment and any(value for name, value in flat.items() if name.endswith("_weight"))


complete = st.fixed_dictionaries({name: values(field) for name, field in LEAVES.items()}).filter(consistent)


@each_model
def test_every_setting_has_a_description_and_a_default(model):
    for name, field in leaves(model):
        assert field.description, name
        assert field.default is not PydanticUndefined, name


@each_model
def test_defaults_and_presets_parse(model):
    assert build(model, {}) == model()
    method = next(m for m in METHODS.values() if m.Config is model)
    for name, preset in method.presets.items():
        assert isinstance(build(model, preset, name), model)


def test_presets_are_what_the_paper_and_the_design_say():
    paper = build(HSCMAEConfig, PRESETS["paper"])
    assert (paper.masking.ratio, paper.affinity.k, paper.warm_start.kind) == (0.3, 5, "none")
    default = build(HSCMAEConfig, PRESETS["default"])
    assert min(default.loss.global_weight, default.loss.local_weight, default.loss.sample_weight) > 0


@settings(derandomize=True, max_examples=100, deadline=None)
@given(complete)
def test_flat_nested_and_dotted_forms_are_one(chosen):
    config = build(HSCMAEConfig, nest(HSCMAEConfig, chosen))
    flat = flatten(config)
    assert flat == {name.replace(".", "_"): value for name, value in chosen.items()}
    assert build(HSCMAEConfig, nest(HSCMAEConfig, flat)) == config
    assert build(HSCMAEConfig, config.model_dump()) == config
    assert HSCMAEConfig.model_validate_json(config.model_dump_json()) == config


@each_model
def test_flat_names_are_unique_and_complete(model):
    dotted = [name for name, _ in leaves(model)]
    assert sorted(dotted_names(model).values()) == sorted(dotted)
    assert list(flatten(model())) == [name.replace(".", "_") for name in dotted]
    assert set(dotted_names(model)) == set(flatten(model()))


@pytest.mark.parametrize("name", LEAVES)
def test_bounds_are_kept_and_the_refusal_names_the_setting(name):
    limit = bounds(LEAVES[name])
    step = {int: 1, float: 1e-9}.get(LEAVES[name].annotation)
    bad = {
        "ge": lambda v: v - step,
        "gt": lambda v: v,
        "le": lambda v: v + step,
        "lt": lambda v: v,
    }
    wrong = [bad[key](value) for key, value in limit.items()] + [
        "nonsense" if LEAVES[name].annotation is not str else 3
    ]
    wrong += [float("nan"), float("inf")] if LEAVES[name].annotation is float else []
    for value in wrong:
        with pytest.raises(InputError, match=rf"^c\.yaml: {name}: [^\n]*$"):
            build(HSCMAEConfig, nest(HSCMAEConfig, {name: value}), "c.yaml")


def test_numbers_without_any_bound_are_few_and_known():
    assert [n for n, f in LEAVES.items() if f.annotation in (int, float) and not bounds(f)] == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("masking.ratio", 1.0),
        ("network.dropout", 1.0),
        ("training.batch_size", 1),
        ("teacher.decay", 1.01),
        ("loss.global_weight", -1.0),
        ("loss.tau", 0.0),
        ("affinity.k", 0),
        ("affinity.k", 2.5),
        ("affinity.source", "disk"),
        ("head.ridge", 0.0),
        ("dim", 0),
        ("seed", -1),
    ],
)
def test_values_that_cannot_work_are_refused(setting, value):
    with pytest.raises(InputError, match=setting):
        build(HSCMAEConfig, nest(HSCMAEConfig, {setting: value}))


def test_the_own_pair_has_one_treatment():
    with pytest.raises(InputError, match="affinity: mask_pair leaves the own pair out"):
        build(HSCMAEConfig, {"affinity": {"mask_pair": True, "pair_share": 0.1}})


WEIGHTS = [name.removeprefix("loss.") for name in LEAVES if name.endswith("_weight")]


@pytest.mark.parametrize("left", WEIGHTS)
def test_every_loss_can_be_removed_but_not_all(left):
    none = dict.fromkeys(WEIGHTS, 0.0)
    assert build(HSCMAEConfig, {"loss": none | {left: 1.0}}).loss.global_weight == float(left == "global_weight")
    with pytest.raises(InputError, match="loss: every weight is 0"):
        build(HSCMAEConfig, {"loss": none})


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"loss": {"taw": 1}}, "c.yaml: unknown setting 'loss.taw'; did you mean 'loss.tau'?"),
        ({"los": {"tau": 1}}, "c.yaml: unknown setting 'los'; did you mean 'loss'?"),
        ({"sead": 1}, "c.yaml: unknown setting 'sead'; did you mean 'seed'?"),
        ({"xyzzy": 1}, "c.yaml: unknown setting 'xyzzy'"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(given_, message):
    with pytest.raises(InputError) as refused:
        build(HSCMAEConfig, given_, "c.yaml")
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("given_", "near"), [("loss_taw", "loss_tau"), ("masking.ration", "masking.ratio"), ("dims", "dim"), ("qqq", None)]
)
def test_unknown_flat_names_are_refused_with_the_nearest(given_, near):
    with pytest.raises(InputError) as refused:
        nest(HSCMAEConfig, {given_: 1})
    hint = f"; did you mean {near!r}?" if near else ""
    assert str(refused.value) == f"unknown setting {given_!r}{hint}"


def test_a_setting_of_another_method_is_unknown():
    with pytest.raises(InputError, match=r"unknown setting 'masking\.ratio'"):
        nest(MODELS["infonce"], {"masking.ratio": 0.5})


def test_merge_goes_section_by_section_and_leaves_its_arguments_alone():
    base = {"loss": {"tau": 0.1, "ridge": 0.2}, "seed": 1, "head": {"final": True}}
    over = {"loss": {"tau": 0.5}, "seed": 2, "masking": {"ratio": 0.3}}
    assert merge(base, over) == {
        "loss": {"tau": 0.5, "ridge": 0.2},
        "seed": 2,
        "head": {"final": True},
        "masking": {"ratio": 0.3},
    }
    assert base == {"loss": {"tau": 0.1, "ridge": 0.2}, "seed": 1, "head": {"final": True}}
    assert over == {"loss": {"tau": 0.5}, "seed": 2, "masking": {"ratio": 0.3}}
    assert merge(base, {}) == base


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        HSCMAEConfig().loss.tau = 3.0


def test_one_setting_of_a_section_leaves_the_methods_own_defaults_of_the_others():
    own = MODELS["infonce"]()
    assert own.training.lr != Training().lr
    assert build(MODELS["infonce"], {"training": {"refit": False}}).training.lr == own.training.lr
    assert METHODS["infonce"](training_refit=False).config.training.lr == own.training.lr
    assert METHODS["dcca"].from_settings({"head": {"ridge": 3.0}}).config.head.final == "ridge"


@pytest.mark.parametrize(("before", "now"), [(True, "ridge"), (False, "none")])
def test_a_head_that_was_a_switch_is_known_again(before, now):
    assert build(HSCMAEConfig, {"head": {"final": before}}).head.final == now
    with pytest.raises(InputError, match=r"head\.final"):
        build(HSCMAEConfig, {"head": {"final": "linear"}})
