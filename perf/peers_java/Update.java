import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** What a message, or several of one row, do to a row. Knows what the traffic of the measurement has: no links. */
final class Update {
    private static final ObjectMapper JSON = new ObjectMapper();

    final String app;
    final String subscription;
    private final ObjectNode tags;
    private ObjectNode counts;
    /** Some tag is null, which removes it. */
    boolean removes;
    String deviceType;
    String identifier;
    long offset;
    long millis;

    static Update of(ConsumerRecord<String, String> record) {
        try {
            return new Update(record, JSON.readTree(record.value()));
        } catch (JsonProcessingException error) {
            throw new IllegalArgumentException(error);
        }
    }

    private Update(ConsumerRecord<String, String> record, JsonNode value) {
        app = value.get("app_id").textValue();
        subscription = value.get("subscription_id").textValue();
        tags = (ObjectNode) value.get("tags");
        counts = (ObjectNode) value.get("counts");
        deviceType = value.path("device_type").textValue();
        identifier = value.path("identifier").textValue();
        offset = record.offset();
        millis = record.timestamp();
        for (var tag : tags.properties()) {
            if (tag.getValue().isNull() || tag.getValue().asText().isEmpty()) {
                tag.setValue(JSON.nullNode());
                removes = true;
            }
        }
    }

    String row() {
        return app + subscription;
    }

    /** One of the same row that comes after this one. */
    void add(Update later) {
        tags.setAll(later.tags);
        removes |= later.removes;
        if (counts == null) {
            counts = later.counts;
        } else if (later.counts != null) {
            later.counts.properties().forEach(
                    count -> counts.put(count.getKey(), counts.path(count.getKey()).asLong() + count.getValue().asLong()));
        }
        deviceType = later.deviceType == null ? deviceType : later.deviceType;
        identifier = later.identifier == null ? identifier : later.identifier;
        offset = later.offset;
        millis = later.millis;
    }

    String tagsText() {
        return tags.toString();
    }

    String countsText() {
        return counts == null ? null : counts.toString();
    }
}
