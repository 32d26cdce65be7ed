// The Market view: what GPUs cost now and did, and offers to filter, sort, price and rent.
import { Button, Panel } from "../../ui/parts";
import { quoteOf, shownQuote } from "./market_readings";
import { Offers } from "./offers";
import { Prices } from "./prices";
import { Quoted } from "./rent_sheet";

export function MarketView() {
  return (
    <div class="view">
      <AsQuoted />
      <Prices />
      <Offers />
    </div>
  );
}

/** The quote that a model had made, where that opened the page. */
function AsQuoted() {
  const data = shownQuote.value;
  if (data === undefined) return null;
  const quote = quoteOf(data);
  return (
    <Panel
      title="What it would cost"
      note={
        <span class="foreign">
          {quote.gpuCount}× {quote.gpuType}
        </span>
      }
      side={
        <Button
          kind="link"
          onPress={() => {
            shownQuote.value = undefined;
          }}
        >
          Dismiss
        </Button>
      }
    >
      <Quoted quote={quote} />
    </Panel>
  );
}
