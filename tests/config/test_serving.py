import pytest

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import ConfigError


def test_by_default_only_this_machine_is_served():
    config = ServingConfig()
    assert (config.host, config.without_key, config.allow_origin, config.allow_host) == ("127.0.0.1", False, (), ())


@pytest.mark.parametrize("name", ["max_body", "max_prompts", "max_n", "max_tokens"])
def test_no_limit_may_be_zero(name):
    with pytest.raises(ConfigError, match=f"^{name} must be 1 or more, got 0$"):
        ServingConfig(**{name: 0})


@pytest.mark.parametrize("slots", [0, 4097])
def test_slots_are_1_to_4096(slots):
    with pytest.raises(ConfigError, match=r"^slots must be 1 to 4,096, got"):
        ServingConfig(slots=slots)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_has_16_bits(port):
    with pytest.raises(ConfigError, match=f"^port must be 0 to 65535, got {port}$"):
        ServingConfig(port=port)


@pytest.mark.parametrize("name", ["queue", "grace"])
def test_nobody_may_wait_and_nothing_be_left_but_not_less(name):
    assert getattr(ServingConfig(**{name: 0}), name) == 0
    with pytest.raises(ConfigError, match=f"^{name} must be 0 or more, got -1$"):
        ServingConfig(**{name: -1})


def test_a_deadline_leaves_some_time():
    with pytest.raises(ConfigError, match=r"^deadline must be above 0, got 0$"):
        ServingConfig(deadline=0)


@pytest.mark.parametrize("name", ["deadline", "grace"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_time_is_infinite_or_not_a_number(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be a finite number, got {value}$"):
        ServingConfig(**{name: value})


def test_an_unknown_template_is_refused():
    with pytest.raises(ConfigError, match=r"^chat_template must be one of 'none', 'plain', got 'chatml'$"):
        ServingConfig(chat_template="chatml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "my-machine.lan"])
def test_a_host_is_a_name_or_an_address(host):
    assert ServingConfig(host=host).host == host


@pytest.mark.parametrize("host", ["", " ", "http://localhost", "[::1]", "*"])
def test_anything_else_is_no_host(host):
    with pytest.raises(ConfigError, match=r"^host must be a name or an address, got"):
        ServingConfig(host=host)


@pytest.mark.parametrize("origin", ["*", "https://example.org", "http://localhost:3000", "chrome-extension://abcdef"])
def test_an_origin_is_what_a_browser_sends(origin):
    assert ServingConfig(allow_origin=(origin,)).allow_origin == (origin,)


@pytest.mark.parametrize(
    "origin", ["", "null", "example.org", "https://", "https://example.org/", "https://a.org/x", "https://*.a.org"]
)
def test_anything_else_is_no_origin(origin):
    with pytest.raises(ConfigError, match=r"^allow_origin is \* or such as https://example\.org, got"):
        ServingConfig(allow_origin=(origin,))


@pytest.mark.parametrize("name", ["*", "example.org", "gpt2"])
def test_an_allowed_host_is_a_name(name):
    assert ServingConfig(allow_host=(name,)).allow_host == (name,)


@pytest.mark.parametrize("name", ["", "https://example.org", "example.org:5000", "*.example.org", "a b"])
def test_anything_else_is_no_allowed_host(name):
    with pytest.raises(ConfigError, match=r"^allow_host is \* or a name without a port, got"):
        ServingConfig(allow_host=(name,))
