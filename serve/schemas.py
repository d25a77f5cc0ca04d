"""Requests and answers, in the shape of OpenAI's completions."""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.engines.schema import ALONE, MOST_DEPTH, depth
from serve import json_text
from serve.call_schema import call_schema
from serve.calls import CallReader

MAX_BODY_BYTES = 2**20
USUAL_CONTINUATION = 16
"""Tokens of a continued text when the client names no number: OpenAI's default."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Closed):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """What an earlier answer called."""

    name: Annotated[str, Field(max_length=64)]
    arguments: str
    """A JSON object."""

    @field_validator("arguments")
    @classmethod
    def _object(cls, value: str) -> str:
        found = json_text.parse(value)
        if not isinstance(found, dict):
            raise ValueError("is no JSON object")
        if depth(found) > MOST_DEPTH:
            raise ValueError(f"is nested more than {MOST_DEPTH} deep")
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("holds a lone surrogate") from None
        return value


class EarlierCall(BaseModel):
    """A call of a tool in an earlier answer."""

    id: Annotated[str, Field(max_length=100)]
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    """One turn of the conversation."""

    # Clients send back whole assistant messages, with fields that say nothing here.
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: Annotated[list[EarlierCall], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=100)] | None = None
    """The call whose result this is."""

    @model_validator(mode="after")
    def _whole(self) -> "Message":
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls goes with the role assistant alone")
        if self.content is None and not self.tool_calls:
            raise ValueError("content is needed where nothing is called")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("tool_call_id goes with the role tool, and only with it")
        return self

    def plain(self) -> dict[str, Any]:
        """Role and text, and what was called; `developer` is today's name of `system`."""
        text = "".join(part.text for part in self.content) if isinstance(self.content, list) else self.content or ""
        plain: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.tool_calls:
            plain["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            plain |= {"tool_call_id": self.tool_call_id}
        return plain


FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(_Closed):
    """Something that an answer may call."""

    name: FunctionName
    description: Annotated[str, Field(max_length=4000)] | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of its arguments, an object."""
    strict: bool | None = None
    """A call that is forced always follows it; one that the model makes of its own accord need not."""

    @field_validator("parameters")
    @classmethod
    def _of_an_object(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        if depth(value) > MOST_DEPTH:
            raise ValueError(f"is nested more than {MOST_DEPTH} deep")
        if value is None:
            return None
        try:
            Draft202012Validator.check_schema(value)
        except SchemaError as error:
            raise ValueError(f"is no JSON schema: {error.message}") from None
        if value.get("type") == "object":
            return value
        if "type" in value or value.keys() & ALONE:
            raise ValueError("must say `type: object` at its top: arguments have names")
        return {"type": "object"} | value


class Tool(_Closed):
    """A function, as OpenAI writes it."""

    type: Literal["function"]
    function: Function


class _ChosenName(_Closed):
    name: FunctionName


class ChosenTool(_Closed):
    """The function that must be called."""

    type: Literal["function"]
    function: _ChosenName


class StreamOptions(_Closed):
    """What a stream carries besides text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class PlainFormat(_Closed):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class NamedSchema(_Closed):
    """A JSON schema under a name."""

    name: FunctionName
    description: Annotated[str, Field(max_length=4000)] | None = None
    content: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    """It is always followed, or refused."""


class SchemaFormat(_Closed):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class GenerationFields(_Closed):
    """What both kinds of completion take. A field that would change the answer and is not served is refused."""

    model: Annotated[str, Field(max_length=200)] = "auto"
    """`auto` or the recipe's name: the user's sticky arm; `base` or `tuned`: that one."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Who asks; the same user always meets the same arm."""
    # Accepted where they change nothing.
    n: Literal[1] = 1
    presence_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(GenerationFields):
    """A conversation to answer."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    """Tell each token's log probability."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """And those of so many likeliest ones in its place."""
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    """JSON by construction: tokens that could not go on so are never chosen. The prompt is not told of it."""
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    """What the answer may call; the chat template tells the model of them."""
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    """`required`, or one by its name: the answer is such a call by construction."""
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    place: ClassVar[str] = "messages"
    """The field that holds the prompt."""

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatRequest":
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ: send one")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's own: end with the user's")
        return self

    @model_validator(mode="after")
    def _tools_fit(self) -> "ChatRequest":
        names = [tool.function.name for tool in self.tools or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tools: {twice[0]} is there twice")
        if not names and self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice needs tools to choose from")
        if isinstance(self.tool_choice, ChosenTool) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice: {self.tool_choice.function.name} is none of tools")
        may_call = names and self.tool_choice != "none"
        if may_call and self.logprobs:
            raise ValueError("logprobs are not told where tools may be called: say tool_choice: none")
        if may_call and self.response_format and self.response_format.type != "text":
            raise ValueError("an answer that follows a response_format calls nothing: say tool_choice: none")
        if may_call and not self._forced and self.parallel_tool_calls is False:
            raise ValueError("parallel_tool_calls: false can be kept only where tool_choice forces a call")
        return self

    def limit(self, most: int) -> int:
        """Most tokens to generate; `most`, the service's own limit, if the client set none."""
        return self.max_completion_tokens or self.max_tokens or most

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens are told; None: no probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def tools_told(self) -> tuple[dict[str, Any], ...]:
        """What the prompt tells of tools."""
        if self.tool_choice == "none":
            return ()
        return tuple(tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in self.tools or ())

    @property
    def _forced(self) -> list[Function]:
        """The functions of which one must be called; none: that is the model's to say."""
        functions = [tool.function for tool in self.tools or ()]
        if isinstance(self.tool_choice, ChosenTool):
            return [one for one in functions if one.name == self.tool_choice.function.name]
        return functions if self.tool_choice == "required" else []

    def reader(self) -> CallReader | None:
        """What finds the answer's calls; None where there can be none."""
        names = [tool["function"]["name"] for tool in self.tools_told]
        return CallReader(names, forced=bool(self._forced)) if names else None

    @property
    def json_schema(self) -> str | None:
        """What the answer must be; None: any text."""
        if self._forced:
            return json.dumps(call_schema([one.model_dump() for one in self._forced]))
        if isinstance(self.response_format, SchemaFormat):
            return json.dumps(self.response_format.json_schema.content)
        return '{"type": "object"}' if self.response_format and self.response_format.type == "json_object" else None

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The conversation."""
        return [message.plain() for message in self.messages]


class CompletionRequest(GenerationFields):
    """A text to continue as it is: no chat template is applied."""

    prompt: str | list[str]
    """The text; in a list of one, too."""
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Tell each token's log probability, and those of so many likeliest ones in its place."""

    place: ClassVar[str] = "prompt"

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        text = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(text, str):
            raise ValueError("must be a text or a list of one text: several prompts and token ids are not served")
        if not text:
            raise ValueError("is empty: there is nothing to continue")
        return text

    def limit(self, most: int) -> int:
        """Most tokens to generate; OpenAI's 16, or `most` where that is less, if the client set none."""
        return self.max_tokens or min(USUAL_CONTINUATION, most)

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens are told; None: no probabilities at all."""
        return self.logprobs

    @property
    def json_schema(self) -> None:
        """A text goes on as it likes."""
        return None

    @property
    def tools_told(self) -> tuple[dict[str, Any], ...]:
        """A text calls none."""
        return ()

    @property
    def asked(self) -> str:
        """The text."""
        assert isinstance(self.prompt, str), "a list of one was taken apart"
        return self.prompt


FeedbackKind = Literal["thumb_up", "thumb_down", "flag", "correction", "preferred", "tied"]
"""`preferred`, `tied`: what a person said of two answers to one question who did not know whose they were: that this
one is better, or that both are as good."""


class FeedbackRequest(_Closed):
    """What a person says of an answer."""

    request_id: Annotated[str, Field(min_length=1, max_length=100)]
    kind: FeedbackKind
    reason: Annotated[str, Field(max_length=4000)] | None = None
    correction: Annotated[str, Field(max_length=100_000)] | None = None
    """The answer as it should have been; for kind `correction`."""

    @model_validator(mode="after")
    def _corrections_correct(self) -> "FeedbackRequest":
        if (self.kind == "correction") != (self.correction is not None):
            raise ValueError("`correction` goes with kind correction, and only with it")
        return self


MAX_EVENTS = 1000
EventName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Event(_Closed):
    """Something that came of an answer: a case resolved, minutes of editing, an order."""

    event_id: Annotated[str, Field(min_length=1, max_length=100)]
    """The sender's own: the same event sent again counts once."""
    name: EventName
    """What happened; a recipe's metric `event.NAME` is made of it."""
    value: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    user: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Whom it happened to, as in the requests; or `request_id`."""
    request_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """The request that it came of."""
    at: AwareDatetime | None = None
    """When it happened, with its time zone; without it, now. It may come late, and in any order."""

    @model_validator(mode="after")
    def _somebody(self) -> "Event":
        if self.user is None and self.request_id is None:
            raise ValueError("say whom it happened to: user or request_id")
        return self


class EventsRequest(_Closed):
    """Events, all of which are stored, or none."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_EVENTS)]


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(BaseModel):
    """An answer, as the client hands it on."""

    request_id: str
    arm: str
    model: str
    text: str
    finish_reason: str
    usage: Usage
    tool_calls: list[dict[str, Any]] = []
    """In OpenAI's shape."""
