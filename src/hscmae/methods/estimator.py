"""scikit-learn's manners: flat parameters from nested settings, ``get_params``, ``set_params``, ``clone``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from hscmae.config import MethodConfig, build, describe, flatten, merge, nest
from hscmae.errors import InputError


class Estimator:
    """What is built from settings; its parameters are those of ``Config``, by their flat names, and ``preset``.

    >>> from hscmae.methods import RidgeCCA
    >>> model = RidgeCCA(dim=8).set_params(ridge=3.0)
    >>> model, model.get_params()["ridge"]
    (RidgeCCA(dim=8, ridge=3.0), 3.0)

    Attributes:
        config: the settings, nested and validated.
        preset: the named settings that those given were changes of.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}

    config: MethodConfig
    preset: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class a constructor whose signature and documentation are its settings'."""
        super().__init_subclass__(**kwargs)
        if "Config" not in cls.__dict__:
            return
        parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        described = {"preset": (str, "default", f"named settings: {', '.join(cls.presets)}"), **describe(cls.Config)}
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, (kind, default, _) in described.items()
        ]

        def init(self: Estimator, **settings: Any) -> None:
            Estimator.__init__(self, **settings)

        init.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        cls.__init__ = init  # type: ignore[method-assign]
        listed = "\n".join(
            f"    {name}: {text} (default {default!r})." for name, (_, default, text) in described.items()
        )
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nArgs:\n{listed}\n"

    def __init__(self, *, preset: str = "default", **settings: Any) -> None:
        if preset not in self.presets:
            raise InputError(f"{self.name} has no preset {preset!r}; it has {', '.join(self.presets)}")
        self.preset = preset
        nested = merge(self.presets[preset], nest(self.Config, settings))
        self.config = build(self.Config, nested, self.name)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], preset: str = "default") -> Self:
        """Build from nested settings, as configuration files and artefacts hold them."""
        config = build(cls.Config, merge(cls.presets.get(preset, {}), settings), cls.name)
        return cls(preset=preset, **flatten(config))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Every setting by its flat name, and the preset; what ``sklearn.base.clone`` copies."""
        return {"preset": self.preset, **flatten(self.config)}

    def set_params(self, **params: Any) -> Self:
        """Change settings; a ``preset`` resets every setting not given with it.

        What was fitted with other settings is forgotten.
        """
        if not params:
            return self
        kept = {} if "preset" in params else self.get_params()
        fresh = type(self)(**kept | params)
        self.__dict__.clear()
        self.__dict__.update(fresh.__dict__)
        return self

    def changed_params(self) -> dict[str, Any]:
        """The settings that are not the preset's, and the preset where it is not the default."""
        standard = type(self)(preset=self.preset).get_params()
        changed = {name: value for name, value in self.get_params().items() if value != standard[name]}
        return changed if self.preset == "default" else {"preset": self.preset, **changed}

    def __repr__(self) -> str:
        changed = self.changed_params()
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "dims_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False))
