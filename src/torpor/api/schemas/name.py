"""Names with their addresses, and whether both are true."""

from pydantic import BaseModel

from torpor.engine.views import NameView


class NameSchema(BaseModel):
    name: str
    fqdn: str
    address: str
    mac: str
    workload: str
    workload_state: str
    address_state: str
    address_detail: str
    published: bool
    """The name server has it."""

    @classmethod
    def of(cls, view: NameView) -> "NameSchema":
        return cls(
            name=view.name,
            fqdn=view.fqdn,
            address=view.address,
            mac=view.mac,
            workload=view.workload,
            workload_state=view.workload_state,
            address_state=view.address_state,
            address_detail=view.address_detail,
            published=view.published,
        )


class NamesSchema(BaseModel):
    names: list[NameSchema]
