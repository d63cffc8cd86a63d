"""What holds for every method."""

import ast
import inspect
import json
from collections import defaultdict
from dataclasses import fields
from itertools import pairwise

import pytest
import yaml

from spp.dynamics.budget import Budget
from spp.dynamics.path import SolutionPath
from spp.dynamics.ranking import Ranking, open_path
from spp.locations import CONF
from spp.methods.method import KINDS
from spp.methods.registry import check_kind, config_class, method_names, read_method
from spp.methods.search import BudgetSearch, OrderSearch, RankingSearch

NAMES = method_names()
SEARCHES = [(name, kind) for name in NAMES for kind in config_class(name).kinds]
MEMBER = Budget("macs", 0.85)
"""Within reach of all, also of methods that drop heads alone."""


def documented_fields(cls):
    """Names of the fields of a class, and of its bases, that a docstring follows."""
    found = set()
    for base in (base for base in cls.__mro__ if base is not object):
        (definition,) = ast.parse(inspect.getsource(base)).body
        for line, after in pairwise(definition.body):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found.add(line.target.id)
    return found


def searched(tiny, name, kind, num_steps=12):
    config = config_class(name)()
    masked = tiny.masked(per_head=config.needs_heads)
    masked.model.requires_grad_(config.trains_weights)
    search = tiny.search(config, masked, num_steps, MEMBER if "budget" in kind else None)
    search.on_epoch_start(0, 1)
    tiny.run(search, tiny.batches(masked, num_steps), lr=0.01 if config.trains_weights else 0.0)
    return config, masked, search


def dearest_choice(config, pairs):
    """MACs of the dearest unit, or of the dearest head where those go as a whole."""
    units = [pair.macs_per_unit for pair in pairs]
    if not config.needs_heads:
        return max(units)
    heads = defaultdict(float)
    for pair in pairs:
        heads[pair.owner] += pair.macs_per_unit * (pair.size // pair.num_heads if pair.kind != "mlp" else 1)
    return max(heads.values())


@pytest.mark.parametrize("name", NAMES)
def test_settings_have_a_name_and_docstrings_and_their_file_has_the_defaults(name):
    cls = config_class(name)
    assert cls().name == name
    assert {field.name for field in fields(cls)} <= documented_fields(cls)
    assert read_method(yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())) == cls()


@pytest.mark.parametrize("name", NAMES)
def test_kinds_are_known_and_named_once(name):
    kinds = config_class(name).kinds
    assert kinds
    assert set(kinds) <= set(KINDS)
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_of_the_search_or_of_the_selection(name):
    config = config_class(name)()
    selection = config.selection_settings()
    searches = {kind: config.search_settings(kind) for kind in config.kinds}
    for settings in (selection, *searches.values()):
        assert json.loads(json.dumps(settings)) == settings
        assert read_method(settings) == config
    for search in searches.values():
        assert set(search) & set(selection) == {"name"}
    assert {name for settings in (selection, *searches.values()) for name in settings} == set(config.identity())


def test_a_pipeline_refuses_methods_of_another_kind():
    check_kind(read_method({"name": "lasso"}), "ranking")
    message = r"^pipeline: it does not fit method=upop; allowed with it: method=spp; leave pipeline out"
    with pytest.raises(ValueError, match=message) as caught:
        check_kind(read_method({"name": "upop"}), "path")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kind in SEARCHES if kind != "budget"])
def test_an_order_is_kept_in_a_file_and_members_are_chosen_from_it(tiny, tmp_path, name, kind):
    config, masked, search = searched(tiny, name, kind)
    assert isinstance(search, OrderSearch)
    assert isinstance(search, RankingSearch) == (kind != "path")
    search.order({"seed": 5}).save(tmp_path)
    path = open_path(tmp_path)
    assert type(path) is (SolutionPath if kind == "path" else Ranking)
    assert path.meta["provenance"] == {"seed": 5}
    masks = tiny.select(config, path, MEMBER.kind, MEMBER.value)
    missed = MEMBER.value * masked.pairs[0].model_cost.macs - tiny.achieved(masked.model, masks).macs
    assert 0 <= missed < dearest_choice(config, masked.pairs)


@pytest.mark.parametrize("name", [name for name, kind in SEARCHES if kind == "budget"])
def test_a_search_for_one_member_ends_in_it(tiny, name):
    config, masked, search = searched(tiny, name, "budget")
    assert isinstance(search, BudgetSearch)
    size = tiny.achieved(masked.model, search.final_masks()).macs / masked.pairs[0].model_cost.macs
    assert 0.7 < size <= MEMBER.value
    with pytest.raises(ValueError, match=rf"^method\.name: {name} is not allowed where members are chosen"):
        tiny.select(config, None, "macs", 0.5)
    with pytest.raises(ValueError, match=r"^budget: None is not allowed"):
        tiny.search(config, tiny.masked(per_head=config.needs_heads), 4)


@pytest.mark.parametrize(("name", "kind"), SEARCHES)
def test_what_a_search_tells_is_plain_and_its_steps_are_counted(tiny, name, kind):
    _, _, search = searched(tiny, name, kind)
    assert search.num_steps_taken == 12
    assert all(isinstance(value, float) for value in search.metrics().values())
    assert json.loads(json.dumps(search.summary())) == search.summary()
    assert isinstance(search.progress_note(), str)
