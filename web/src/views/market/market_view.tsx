// The Market view: prices of GPU types, and offers to filter and sort.
import { Empty, Panel } from "../../ui/parts";

export function MarketView() {
  return (
    <Panel title="Market">
      <Empty title="Nothing here yet" />
    </Panel>
  );
}
