"""The names of all models as folders of names, in memory. Pure: who asks for them, and when, is in `namespace`."""

from bisect import bisect_left, insort
from collections.abc import Mapping

from shardfs.core.keys import RefName


class Names:
    """The newest generation of each model by its name: `team/bert` lies in the folder `team`."""

    def __init__(self, models: Mapping[str, RefName]) -> None:
        self.models = dict(models)
        self._sorted = sorted(self.models)

    def __contains__(self, model: str) -> bool:
        return model in self.models

    def get(self, model: str) -> RefName | None:
        return self.models.get(model)

    def replace(self, models: Mapping[str, RefName]) -> None:
        """All of them anew."""
        if models != self.models:
            self.models, self._sorted = dict(models), sorted(models)

    def take(self, model: str, ref: RefName | None) -> None:
        """What was found for one model; None when it is not there."""
        if ref is None:
            if self.models.pop(model, None) is not None:
                self._sorted.remove(model)
        else:
            if model not in self.models:
                insort(self._sorted, model)
            self.models[model] = ref

    def is_folder(self, path: str) -> bool:
        """Whether any model lies below `path`."""
        at = bisect_left(self._sorted, path + "/")
        return at < len(self._sorted) and self._sorted[at].startswith(path + "/")

    def below(self, prefix: str) -> dict[str, RefName | None]:
        """Names directly below `prefix`: a model's ref, or None for a folder of further names."""
        found: dict[str, RefName | None] = {}
        for at in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            model = self._sorted[at]
            if not model.startswith(prefix):
                break
            name, slash, _ = model[len(prefix) :].partition("/")
            if not slash:
                found[name] = self.models[model]
            else:
                found.setdefault(name, None)
        return found
