"""The settings as a typed model read from the environment; `settings_table.py` has each of them, once.

What belongs to this server is ``LIUM_MCP_*``; what belongs to Lium keeps the names of the official client
(``LIUM_API_KEY``, ``LIUM_BASE_URL``, ``LIUM_SSH_KEY_PATH``), whose config file ``~/.lium/config.ini`` is read as a last
resort. A value that cannot be read stops the start: it never silently becomes the default. `values.py` cleans what
people paste, and `settings_reading.py` reads all of it and says what is wrong. No other file reads a setting from the
environment.
"""

import ipaddress
import os
import re
from functools import cached_property
from pathlib import Path
from socket import gethostname
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

from platformdirs import user_state_path
from pydantic import BeforeValidator, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lium_mcp.api.network import Network
from lium_mcp.guard.consent import ConfirmMode
from lium_mcp.guard.limits import Limits, Names, PolicyFileError, PolicyMode, from_table, read_policy_file
from lium_mcp.guard.server_token import MIN_TOKEN_CHARACTERS, ServerTokenError, check_token, read_token
from lium_mcp.network_settings import read_network
from lium_mcp.oauth_settings import OAuth, check_issuer, check_public_url, read_oauth, split_keys
from lium_mcp.official_config import FoundKey, OfficialConfig, usual_ssh_key_path
from lium_mcp.settings_table import REGISTRY_PREFIX, SETTINGS
from lium_mcp.values import (
    EMPTY,
    UNFILLED,
    SettingsError,
    as_number,
    cleaned,
    cleaned_key,
    cleaned_password,
    expanded,
    is_loopback,
    is_placeholder,
    key_file,
    key_problem,
    listed,
    split_host,
    url_path,
)

ToolsetName = Literal[
    "marketplace", "pods", "templates", "volumes", "backups", "account", "remote", "clusters", "extras"
]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_OF_NO_REPLICA: Final = re.compile(r"[^A-Za-z0-9_-]")

SANDBOX_API_KEY = "sk_sandbox"


class Settings(Limits, BaseSettings):
    """Settings of one server process.

    Raises:
        pydantic.ValidationError: a value is not of its kind; `settings_reading.load` says so in words.
    """

    model_config = SettingsConfigDict(
        env_prefix="LIUM_MCP_",
        env_ignore_empty=True,
        populate_by_name=True,
        enable_decoding=False,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr | None = from_table("api_key")
    base_url: str = from_table("base_url")
    ssh_key_path: Path | None = from_table("ssh_key_path")
    ssh_key_passphrase: SecretStr | None = from_table("ssh_key_passphrase")
    ssh_agent: Path | None = from_table("ssh_agent")
    local_dirs: tuple[Path, ...] = from_table("local_dirs")
    toolsets: frozenset[ToolsetName] = from_table("toolsets")
    allow_tools: Names = from_table("allow_tools")
    deny_tools: Names = from_table("deny_tools")
    read_only: bool = from_table("read_only")
    policy: Path | None = from_table("policy")
    policy_mode: PolicyMode = from_table("policy_mode")
    confirm: ConfirmMode = from_table("confirm")
    state_url: SecretStr | None = from_table("state_url")
    transport: Literal["stdio", "http", "sse"] = from_table("transport")
    host: str = from_table("host")
    port: Annotated[int, BeforeValidator(as_number)] = from_table("port")
    allowed_host: Names = from_table("allowed_host")
    path_prefix: str = from_table("path_prefix")
    server_token: SecretStr | None = from_table("server_token")
    state_keys: SecretStr | None = from_table("state_keys")
    replica: str | None = from_table("replica")
    stateless: bool = from_table("stateless")
    trusted_proxy: Names = from_table("trusted_proxy")
    calls_at_once: Annotated[int, BeforeValidator(as_number)] = from_table("calls_at_once")
    calls_per_minute: Annotated[int, BeforeValidator(as_number)] = from_table("calls_per_minute")
    metrics_port: Annotated[int, BeforeValidator(as_number)] | None = from_table("metrics_port")
    shutdown_delay_seconds: Annotated[float, BeforeValidator(as_number)] = from_table("shutdown_delay_seconds")
    drain_seconds: Annotated[float, BeforeValidator(as_number)] = from_table("drain_seconds")
    oauth: str | None = from_table("oauth")
    public_url: str | None = from_table("public_url")
    oauth_keys: SecretStr | None = from_table("oauth_keys")
    oauth_hook: str | None = from_table("oauth_hook")
    oauth_scopes: Names = from_table("oauth_scopes")
    oauth_registered_only: bool = from_table("oauth_registered_only")
    timeout_seconds: Annotated[float, BeforeValidator(as_number)] = from_table("timeout_seconds")
    log_level: LogLevel = from_table("log_level")
    log_format: Literal["text", "json"] = from_table("log_format")
    audit_file: Path | None = from_table("audit_file")
    sandbox: bool = from_table("sandbox")
    sandbox_speed: Annotated[float, BeforeValidator(as_number)] = from_table("sandbox_speed")
    sandbox_seed: Annotated[int, BeforeValidator(as_number)] = from_table("sandbox_seed")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the base class's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments, then the environment; no file sets anything, so none is looked for."""
        return init_settings, env_settings

    # Of several that come before, pydantic runs the last first.
    @field_validator("toolsets", "local_dirs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment or the command line held
        return listed(value) if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - as above
        """Read a placeholder as no value: hosts hand over `${LIUM_API_KEY}` where the variable is not set.

        In the settings of this server, which guard money, it stops the start instead.
        """
        if not isinstance(value, str):
            return value
        name = str(info.field_name)
        text = {"api_key": cleaned_key, "ssh_key_passphrase": cleaned_password}.get(name, cleaned)(value)
        if text:
            return text
        if not SETTINGS[name].variable.startswith("LIUM_MCP_"):
            return cls.model_fields[name].default
        if value:
            raise ValueError(UNFILLED if is_placeholder(value) else EMPTY)
        return text

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (problem := key_problem(value.get_secret_value())):
            raise ValueError(problem)
        return value

    @field_validator("ssh_key_path", "ssh_agent", "policy", "audit_file")
    @classmethod
    def _expand(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        expand = key_file if info.field_name == "ssh_key_path" else expanded
        return expand(str(value)) if value else None

    @field_validator("local_dirs")
    @classmethod
    def _check_local_dirs(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        folders = tuple(expanded(str(path)) for path in value)
        if missing := [path for path in folders if not path.is_dir()]:
            raise ValueError(f"there is no folder {', '.join(map(str, missing))}")
        return folders

    @field_validator("server_token")
    @classmethod
    def _check_server_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_token(value.get_secret_value())
        return value

    @field_validator("state_keys")
    @classmethod
    def _check_state_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        keys = listed(value.get_secret_value())
        try:
            for key in keys or [""]:
                check_token(key)
        except ValueError:
            raise ValueError(f"each is at least {MIN_TOKEN_CHARACTERS} letters, digits or signs") from None
        if len(set(keys)) < len(keys):
            raise ValueError("one is there twice")
        return value

    @field_validator("replica")
    @classmethod
    def _check_replica(cls, value: str | None) -> str | None:
        if value is not None and _OF_NO_REPLICA.search(value):
            raise ValueError("a name of letters, digits, - and _ is needed")
        return value

    @field_validator("allowed_host")
    @classmethod
    def _check_allowed_host(cls, value: frozenset[str]) -> frozenset[str]:
        for name in value:
            split_host(name)
        return value

    @field_validator("path_prefix")
    @classmethod
    def _check_path_prefix(cls, value: str) -> str:
        return url_path(value)

    @field_validator("trusted_proxy")
    @classmethod
    def _check_trusted_proxy(cls, value: frozenset[str]) -> frozenset[str]:
        for address in value:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError("an IP address, or a network such as 10.0.0.0/8, is needed") from None
        return value

    @field_validator("oauth", "public_url")
    @classmethod
    def _check_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        check = check_issuer if info.field_name == "oauth" else check_public_url
        return check(value) if value is not None else None

    @field_validator("oauth_keys")
    @classmethod
    def _check_oauth_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            split_keys(value.get_secret_value())
        return value

    @property
    def asks(self) -> ConfirmMode:
        """When a person is asked: without sessions nobody can tell of an older client that it could have asked one."""
        return "always" if self.stateless and self.confirm == "auto" else self.confirm

    def find_replica(self) -> str:
        """The name of this replica in session ids."""
        return self.replica or _OF_NO_REPLICA.sub("-", gethostname().partition(".")[0]) or "replica"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server: others never act with its key or get its SSH key.

        A host name under which to call, or a proxy in front, means that callers come from elsewhere.
        """
        proxied = self.allowed_host or self.trusted_proxy or self.path_prefix
        return self.transport == "stdio" or (is_loopback(self.host) and not proxied)

    @property
    def server_token_path(self) -> Path | None:
        """Where the server token is kept; None where callers need none, or where it is set.

        None is needed where there is no key to spend, and for the sandbox's, which everybody knows.
        """
        if self.transport == "stdio" or not self.is_local or self.server_token is not None:
            return None
        if self.find_api_key() in (None, SANDBOX_API_KEY):
            return None
        return user_state_path("lium-mcp", appauthor=False) / "server-token"

    def find_server_token(self) -> str | None:
        """The token set, else the one in the file; None where none is needed, or none is made yet.

        Raises:
            SettingsError: the file cannot be used.
        """
        if self.server_token is not None:
            return self.server_token.get_secret_value()
        try:
            return read_token(self.server_token_path) if self.server_token_path else None
        except ServerTokenError as error:
            raise SettingsError(f"LIUM_MCP_SERVER_TOKEN: {error}") from None

    def find_api_key(self) -> str | None:
        """The key to use, if there is one; see `find_key`."""
        return self.find_key().text

    def find_key(self) -> FoundKey:
        """The key to use: the one set, in the sandbox its ready-made one, else the official client's config file.

        Raises:
            SettingsError: the file cannot be read, or what it holds cannot be a key.
        """
        if self.sandbox:
            return FoundKey(SANDBOX_API_KEY, "the sandbox")
        if self.api_key:
            return FoundKey(self.api_key.get_secret_value(), SETTINGS["api_key"].variable)
        workspace = os.environ.get("LIUM_WORKSPACE", "")
        if is_placeholder(workspace):
            raise SettingsError(f"LIUM_WORKSPACE: {UNFILLED}")
        saved = self._official_config.key(cleaned(workspace))
        if saved.text is None and is_placeholder(os.environ.get(SETTINGS["api_key"].variable, "")):
            return FoundKey(missing_because=f"{SETTINGS['api_key'].variable} holds no key: {UNFILLED}.")
        return saved

    @property
    def takes_saved_key(self) -> bool:
        """Whether a key that is saved meanwhile would be this server's at its next start, while it has none now.

        Over HTTP callers come with keys of their own, and there is none for them.
        """
        chosen = cleaned(os.environ.get("LIUM_WORKSPACE", ""))
        return self.transport == "stdio" and not (self.sandbox or self.api_key or chosen)

    def find_key_now(self) -> FoundKey:
        """The key that a server would have which started at this moment, without those that cannot be one."""
        self.__dict__.pop("_official_config", None)
        try:
            return self.find_key()
        except SettingsError:
            return FoundKey()

    @cached_property
    def _official_config(self) -> OfficialConfig:
        return OfficialConfig()

    def find_ssh_key_path(self) -> Path | None:
        """The private key file for pods, found as the official client finds it; None when there is none.

        One that is configured need not be there.
        """
        return self.ssh_key_path or self._official_config.ssh_key_path() or usual_ssh_key_path()

    def find_state_keys(self) -> tuple[str, ...]:
        """The secrets that seal questions, the one in use first; none where this process makes one of its own."""
        return tuple(listed(self.state_keys.get_secret_value())) if self.state_keys else ()

    def find_secrets(self) -> list[str]:
        """What must never come out, whatever it looks like: keys, token, passphrases, passwords of all kinds."""
        state_url = self.state_url.get_secret_value() if self.state_url else ""
        try:
            password = urlsplit(state_url).password or ""
        except ValueError:
            password = state_url
        fields = [getattr(self, name) for name in type(self).model_fields if name != "state_url"]
        held = [value.get_secret_value() for value in fields if isinstance(value, SecretStr)]
        registries = [registry_password(name) for name in os.environ]
        found = (self.find_api_key(), self.find_server_token(), password, unquote(password), *self.find_state_keys())
        return [text for text in (*found, *held, *self.find_oauth_keys(), *registries) if text]

    def find_state_url(self) -> str:
        """Where the ledger is: the address set, in the sandbox nowhere but in memory, else a file of the user's."""
        if self.state_url:
            return self.state_url.get_secret_value()
        if self.sandbox:
            return "sqlite://"
        return f"sqlite:///{user_state_path('lium-mcp', appauthor=False) / 'rentals.db'}"

    def find_oauth(self) -> OAuth | None:
        """How callers over HTTP log in; None where they send keys alone.

        Raises:
            SettingsError: what belongs together is not there together.
        """
        if self.transport == "stdio" or self.oauth is None:
            return None
        return read_oauth(
            self.oauth,
            self.public_url,
            path_prefix=self.path_prefix,
            allowed_host=self.allowed_host,
            listens_at=self.host,
            keys=self.find_oauth_keys(),
            hook=self.oauth_hook,
            scopes=self.oauth_scopes,
            registered_only=self.oauth_registered_only,
            in_sandbox=self.sandbox,
        )

    def find_oauth_keys(self) -> tuple[str, ...]:
        """What encrypts the Lium keys of those who logged in: the first of them, and all decrypt."""
        return split_keys(self.oauth_keys.get_secret_value()) if self.oauth_keys else ()

    def find_network(self) -> Network:
        """The way to the API: the proxy and the certificates that the environment names.

        Raises:
            SettingsError: one of them cannot be used.
        """
        return read_network(self.base_url, os.environ)

    def find_limits(self) -> tuple[Limits, PolicyMode]:
        """The limits of the settings and of the policy file together, in the mode of the file if it has one.

        Raises:
            SettingsError: the policy file cannot be read, or both together make no sense.
        """
        limits, mode = Limits(**{name: getattr(self, name) for name in Limits.model_fields}), self.policy_mode
        if self.policy is not None:
            try:
                of_team, mode_of_team = read_policy_file(self.policy)
            except PolicyFileError as error:
                raise SettingsError(f"LIUM_MCP_POLICY: {error}") from None
            if mode_of_team == "shadow" and mode != "shadow" and (limits.any or "policy_mode" in self.model_fields_set):
                raise SettingsError(
                    f"LIUM_MCP_POLICY: {self.policy}: mode: shadow there would also loosen the limits of the settings; "
                    "if that is meant, set LIUM_MCP_POLICY_MODE=shadow"
                )
            try:
                limits, mode = limits.tightened(of_team), mode_of_team or mode
            except ValueError as error:
                raise SettingsError(f"LIUM_MCP_POLICY: {self.policy}: {error}") from None
        if limits.budget_since is not None and limits.budget_usd is None:
            raise SettingsError(
                "LIUM_MCP_BUDGET_SINCE: it is the first day of no budget: LIUM_MCP_BUDGET_USD is missing"
            )
        return limits, mode

    def find_local_dirs(self) -> tuple[Path, ...]:
        """The folders whose files may be copied to and from pods."""
        if self.local_dirs:
            return self.local_dirs
        # Hosts may start a server anywhere: nobody chose the whole disk, or all that a person has.
        here = Path.cwd()
        return () if here in (Path(here.anchor), Path.home()) else (here,)

    def find_state_directory(self) -> Path | None:
        """Where this server keeps what outlives it; None keeps it in memory.

        A simulated Lium gives its pods the same ids each time it starts, so nothing about them may outlive it.
        """
        if self.sandbox or is_loopback(urlsplit(self.base_url).hostname or ""):
            return None
        return user_state_path("lium-mcp", appauthor=False)


def registry_password(variable: str) -> str | None:
    """The registry password in a variable of the environment; None if it is not set or not meant to hold one.

    Only variables with the prefix are read: a caller must not be able to send any other secret to a stored login.
    """
    return cleaned_password(os.environ.get(variable, "")) or None if variable.startswith(REGISTRY_PREFIX) else None
