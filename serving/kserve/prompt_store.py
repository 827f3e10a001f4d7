"""Feast's Redis store, except that it gives up at once: redis-py would try again for ten seconds before it says that Redis is down."""

from typing import Any, Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis.backoff import NoBackoff
from redis.retry import Retry


class PromptRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc] # feast has no types
    """Its configuration; Feast finds it by the class's name."""

    type: Literal["serving.kserve.prompt_store.PromptRedisOnlineStore"] = "serving.kserve.prompt_store.PromptRedisOnlineStore"


class PromptRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """One immediate retry, which heals a connection that Redis closed, and no waiting."""

    def _get_client(self, online_store_config: Any) -> Any:
        client = super()._get_client(online_store_config)
        if client.get_retry() is None or client.get_retry().get_retries() != 1:
            client.set_retry(Retry(NoBackoff(), 1))
        return client
