import java.net.InetAddress;
import java.util.Hashtable;
import java.util.TreeSet;
import javax.naming.directory.Attributes;
import javax.naming.directory.InitialDirContext;

/** Resolves NAME with the JVM's own DNS client, which asks SERVER itself, and with the system's. */
public class JavaResolver {
    public static void main(String[] arguments) throws Exception {
        String name = arguments[0];
        Hashtable<String, String> environment = new Hashtable<>();
        environment.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        environment.put("java.naming.provider.url", "dns://" + arguments[1]);
        Attributes records = new InitialDirContext(environment).getAttributes(name, new String[] {"A", "AAAA"});
        System.out.println(records.get("A") + " " + records.get("AAAA"));
        TreeSet<String> addresses = new TreeSet<>();
        for (InetAddress address : InetAddress.getAllByName(name)) {
            addresses.add(address.getHostAddress());
        }
        System.out.println(addresses);
    }
}
