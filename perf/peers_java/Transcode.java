import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Puts a topic's updates into the shape that Kafka Connect understands, JSON with its schema, in another topic: each at the same
 * partition and offset, so that rows can be compared with either.
 *
 * <p>BROKERS FROM TO
 */
public final class Transcode {
    private static final String BEGIN = """
            {"schema":{"type":"struct","optional":false,"fields":[\
            {"field":"app_id","type":"string","optional":false,"name":"io.debezium.data.Uuid","version":1},\
            {"field":"subscription_id","type":"string","optional":false,"name":"io.debezium.data.Uuid","version":1},\
            {"field":"tags","type":"string","optional":false,"name":"io.debezium.data.Json","version":1},\
            {"field":"counts","type":"string","optional":false,"name":"io.debezium.data.Json","version":1},\
            {"field":"device_type","type":"string","optional":true},\
            {"field":"identifier","type":"string","optional":true}]},"payload":""";

    public static void main(String[] args) throws Exception {
        Map<String, Object> reading = Map.of("bootstrap.servers", args[0], "max.poll.records", "5000");
        Map<String, Object> writing =
                Map.of("bootstrap.servers", args[0], "linger.ms", "20", "batch.size", "262144", "compression.type", "lz4");
        var wrong = new AtomicReference<Exception>();
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer());
                var producer = new KafkaProducer<>(writing, new StringSerializer(), new StringSerializer())) {
            var partitions = consumer.partitionsFor(args[1]).stream()
                    .map(partition -> new TopicPartition(partition.topic(), partition.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions);
            while (wrong.get() == null && partitions.stream().anyMatch(each -> consumer.position(each) < ends.get(each))) {
                for (var record : consumer.poll(Duration.ofMillis(100))) {
                    var value = shaped(record.value());
                    var message = new ProducerRecord<>(args[2], record.partition(), record.timestamp(), record.key(), value);
                    producer.send(message, (metadata, error) -> {
                        if (error != null || metadata.offset() != record.offset()) {
                            wrong.set(new IllegalStateException("not at offset " + record.offset(), error));
                        }
                    });
                }
            }
        }
        if (wrong.get() != null) {
            throw wrong.get();
        }
    }

    private static final ObjectMapper JSON = new ObjectMapper();

    private static String shaped(String value) throws Exception {
        var update = JSON.readTree(value);
        var payload = JSON.createObjectNode();
        payload.set("app_id", update.get("app_id"));
        payload.set("subscription_id", update.get("subscription_id"));
        payload.put("tags", update.get("tags").toString());
        payload.put("counts", update.has("counts") ? update.get("counts").toString() : "{}");
        payload.set("device_type", update.get("device_type"));
        payload.set("identifier", update.get("identifier"));
        return BEGIN + payload + "}";
    }
}
