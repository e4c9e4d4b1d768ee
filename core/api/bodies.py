"""What a request may say, with its bounds; fields nobody here knows are refused."""

from typing import Annotated

from fastapi import Header, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autocoder.core.commands import MOST_VARIANTS
from autocoder.core.models import PortRange, Role
from autocoder.core.telling import LONGEST as LONGEST_MESSAGE

LARGEST_ID = 2**63 - 1
HIGHEST_PID = 2**22
LONGEST_TTL_S = 365 * 86400

AgentId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["a-0001"])]
FeatureId = Annotated[int, Path(ge=1, le=LARGEST_ID, examples=[7])]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="Ask again under the same key and get the same answer, once done.",
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
# The database holds no lone surrogates and no NUL.
Text = Annotated[str, Field(max_length=20_000, pattern=r"^[^\x00]*$")]


# What a feature is to run, or where it goes; empty: as the project's settings say.
Choice = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Allocation(Body):
    """A pair for a program that is no agent; it ends with its process, or after its time."""

    holder: Name = Field(examples=["nightly-e2e"], pattern=r"^[ -~]+$")
    pid: int | None = Field(None, ge=1, le=HIGHEST_PID, examples=[4711])
    ttl_s: float | None = Field(None, gt=0, le=LONGEST_TTL_S, examples=[3600])
    idempotency_key: str = Field("", max_length=200, examples=["build-1234"])


class Release(Body):
    holder: Name = Field(examples=["nightly-e2e"], pattern=r"^[ -~]+$")
    epoch: int | None = Field(None, ge=0, le=LARGEST_ID, examples=[17])


class Expansion(Body):
    """By `amount` ports in the next free block, by `start` to `end` (exclusive), or by default."""

    pool: Role = Field(examples=["api"])
    amount: int | None = Field(None, ge=1, le=64_000, examples=[50])
    start: int | None = Field(None, ge=1, le=65_535, examples=[None])
    end: int | None = Field(None, ge=2, le=65_536, examples=[None])

    @model_validator(mode="after")
    def _one_way(self) -> "Expansion":
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end belong together")
        if self.amount is not None and self.start is not None:
            raise ValueError("either amount, or start and end")
        return self

    @property
    def wanted(self) -> int | PortRange | None:
        if self.start is not None and self.end is not None:
            return PortRange(self.start, self.end)
        return self.amount


class Spawn(Body):
    """An agent for a feature, for a typed task, or for the next feature."""

    feature_id: int | None = Field(None, ge=1, le=LARGEST_ID, examples=[7])
    task: Text = Field("", examples=[""])
    backend: Choice = Field("", examples=["scripted"])
    model: Choice = Field("", examples=[""])
    base: Choice = Field("", examples=["main"])
    variants: int = Field(1, ge=1, le=MOST_VARIANTS, examples=[1])

    @model_validator(mode="after")
    def _one_way(self) -> "Spawn":
        if self.feature_id is not None and self.task.strip():
            raise ValueError("either feature_id or task")
        if self.variants > 1 and not self.task.strip():
            raise ValueError("only a task can have variants")
        return self


class Tell(Body):
    text: str = Field(max_length=LONGEST_MESSAGE, pattern=r"\S", examples=["Keep the header"])


class NewFeature(Body):
    name: Annotated[Name, Field(pattern=r"^[^\x00]*\S[^\x00]*$")] = Field(examples=["Due dates"])
    description: Text = Field("", examples=["A todo can have a due date."])
    steps: list[Annotated[Text, Field(max_length=2000)]] = Field([], max_length=100)
    category: Annotated[Text, Field(max_length=200)] = Field("", examples=["api"])
    priority: int = Field(0, ge=-1_000_000, le=1_000_000, examples=[10])
    depends_on: list[Annotated[int, Field(ge=1, le=LARGEST_ID)]] = Field([], max_length=100)
    backend: Choice = Field("", examples=[""])
    model: Choice = Field("", examples=[""])
    base: Choice = Field("", examples=[""])


class Priority(Body):
    priority: int = Field(ge=-1_000_000, le=1_000_000, examples=[10])


class Worktrees(Body):
    agent_ids: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=500, examples=[["a-0001"]]
    )
