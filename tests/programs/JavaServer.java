import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** Answers every request with its client's address. Java's sockets are IPv6 by default and take IPv4 as well. */
public class JavaServer {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(arguments[0])), 0);
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRemoteAddress().getAddress().getHostAddress().getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
