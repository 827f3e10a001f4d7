"""What the engine does besides deciding: redeem a token, show and change budgets, explain a logged decision."""

from deltalake import DeltaTable
from redis.exceptions import RedisError

from promolift.contracts.engine import BudgetChange, BudgetState, Explanation, Redeemed, Redemption
from promolift.contracts.tables import DECISIONS
from promolift.errors import ConflictError, InputError
from promolift.policy.ledger import Budget, Change, Ledger
from promolift.policy.token import Keys
from serving.kserve.explain import explain
from serving.kserve.log_delta import Lake, read_decisions
from serving.kserve.problem import RequestError


class Operations:
    """On one ledger, its log in `lake`, and the ring of keys; `pace_step`: how far a decision moves lambda of a budget that is paced.

    Redis' errors pass: the app answers them with 503.
    """

    def __init__(self, ledger: Ledger, keys: Keys, lake: Lake, pace_step: float) -> None:
        self._ledger, self._keys, self._lake, self._pace_step = ledger, keys, lake, pace_step

    def redeem(self, redemption: Redemption, actor: str) -> Redeemed:
        """Commit the token's reservation, exactly once. Raises RequestError 403 for a token that does not hold, ConflictError else."""
        try:
            offer = self._keys.verify(redemption.token, store_id=redemption.store_id, shopper_id=redemption.shopper_id)
        except InputError as problem:
            raise RequestError(403, "The token is refused", str(problem)) from problem
        if redemption.cents > offer.cents:
            raise ConflictError(f"The token pays at most {offer.cents} cents, not {redemption.cents}; nothing was changed.")
        self._ledger.commit(offer.reservation_id, redemption.cents, actor)
        return Redeemed(offer.reservation_id, offer.promo_id, redemption.cents)

    def budgets(self) -> list[BudgetState]:
        """Every budget now."""
        return [_state(name, budget) for name, budget in self._ledger.budgets().items()]

    def set_budget(self, name: str, change: BudgetChange, actor: str) -> BudgetState:
        """The budget after its change. Raises ConflictError for less than is bound, RequestError 404 for a budget that nobody draws on."""
        known = self._ledger.budgets()
        if name not in known:
            raise RequestError(404, "Not found", f"There is no budget '{name}'; there are {', '.join(known) or 'none yet'}.")
        audit = Change(actor, change.reason)
        step = self._pace_step if change.rate_cents else 0.0
        return _state(name, self._ledger.set_budget(name, change.total_cents, audit, rate=change.rate_cents, step=step))

    def explain(self, decision_id: str) -> Explanation:
        """A logged decision in words. Raises RequestError 404."""
        known = DeltaTable.is_deltatable(f"{self._lake}/{DECISIONS.path}")
        found = read_decisions(self._lake, decision_id) if known else []
        if not found:
            raise RequestError(404, "Not found", f"Decision '{decision_id}' is not in the log; the newest ones arrive within seconds.")
        return Explanation(explain(found[0]), found[0])

    def reachable(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self._ledger.client.ping())
        except (RedisError, OSError):
            return False


def _state(name: str, budget: Budget) -> BudgetState:
    return BudgetState(name, budget.total, budget.committed, budget.reserved, budget.headroom, budget.price, budget.rate)
