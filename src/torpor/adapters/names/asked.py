"""The name servers that names are published on, asked as their clients ask: implements the `NameServers` port."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torpor.adapters.names.lookup import Answers, ask, wanted_of
from torpor.domain.naming import NameRecord


@dataclass(frozen=True, slots=True)
class AskedServers:
    zone: str
    servers: Sequence[tuple[str, int]]
    """Address and port."""

    def answers(self, names: Sequence[str]) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        return {f"{server} port {port}": self._asked(server, port, names) for server, port in self.servers}

    def _asked(self, server: str, port: int, names: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        questions = {name: tuple(wanted_of(NameRecord(name), self.zone)) for name in names}
        every = [question for pair in questions.values() for question in pair]
        heard: Answers = ask(server, port, every)
        missed = [question for question in every if question not in heard]
        if missed:  # a packet was lost, or the server is busy reading; one that is silent twice is silent
            heard = {**heard, **ask(server, port, missed)}
        return {
            name: tuple(address for question in pair for address in heard[question])
            for name, pair in questions.items()
            if all(question in heard for question in pair)
        }
