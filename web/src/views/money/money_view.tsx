// The Money view: balance, spending and limits.
import { Empty, Panel } from "../../ui/parts";

export function MoneyView() {
  return (
    <Panel title="Money">
      <Empty title="Nothing here yet" />
    </Panel>
  );
}
