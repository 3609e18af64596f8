"""Short tickets of a service desk with their topics; the first heap says the same in English and in German.

    for ticket in bilingual_tickets.load().development:
        ticket.topic, ticket.english, ticket.german

They were written by hand, before any model was tried on them, and none was left out afterwards.
"""

from dataclasses import dataclass, replace

TOPICS = ("leak", "noise", "electrical", "delivery", "invoice")
OTHER = "other"
"""The topic of what is no ticket at all: none of TOPICS."""


@dataclass(frozen=True)
class Ticket:
    """One message, and what it is about: one of TOPICS, or OTHER."""

    topic: str
    english: str
    german: str = ""


@dataclass(frozen=True)
class Tickets:
    """Two heaps that share no message: one to try things out on, one to report on."""

    development: tuple[Ticket, ...]
    test: tuple[Ticket, ...]


def load() -> Tickets:
    """Return the tickets, in the order of their topics."""
    return Tickets(_read(_DEVELOPMENT), _read(_TEST))


def _read(lines: str) -> tuple[Ticket, ...]:
    tickets: list[Ticket] = []
    topic = ""
    for line in lines.strip().splitlines():
        if line.startswith("# "):
            topic = line[2:]
        elif line.startswith("| "):  # what the line before says, in German
            tickets[-1] = replace(tickets[-1], german=line[2:])
        else:
            tickets.append(Ticket(topic, line))
    return tuple(tickets)


_DEVELOPMENT = """
# leak
Water is dripping from the shaft seal.
| An der Wellendichtung tropft Wasser.
There is a puddle of oil under the pump.
| Unter der Pumpe steht eine Öllache.
The flange is wet again after we tightened the bolts.
| Der Flansch ist wieder nass, obwohl wir die Schrauben nachgezogen haben.
Our basement is flooded because the pump housing has a crack.
| Unser Keller steht unter Wasser, weil das Pumpengehäuse einen Riss hat.
Coolant runs down the side of the casing.
| Kühlmittel läuft außen am Gehäuse herunter.
The gasket no longer holds, the liquid comes out on the pressure side.
| Die Flachdichtung hält nicht mehr, auf der Druckseite tritt Flüssigkeit aus.
Every morning we wipe up a litre of water next to the machine.
| Jeden Morgen wischen wir neben der Maschine einen Liter Wasser auf.
The hose connection sprays when we open the valve.
| Der Schlauchanschluss spritzt, sobald wir das Ventil öffnen.
# noise
The pump hums loudly since this morning.
| Die Pumpe brummt seit heute früh sehr laut.
It rattles as if there were stones inside.
| Es rasselt, als wären Steine darin.
We hear a high whistling when it starts.
| Beim Anlaufen hören wir ein hohes Pfeifen.
The bearing squeals so that people cover their ears.
| Das Lager quietscht, dass man sich die Ohren zuhält.
A strange knocking comes from the housing every few seconds.
| Alle paar Sekunden kommt ein seltsames Klopfen aus dem Gehäuse.
The neighbours complain about the droning at night.
| Die Nachbarn beschweren sich über das Dröhnen in der Nacht.
It vibrates so much that the whole rack shakes and booms.
| Sie vibriert so stark, dass das ganze Gestell wackelt und dröhnt.
There is a grinding sound when the impeller turns.
| Wenn sich das Laufrad dreht, hört man ein Schleifen.
# electrical
The fuse blows as soon as we switch the motor on.
| Sobald wir den Motor einschalten, fliegt die Sicherung heraus.
The display stays dark although the cable is plugged in.
| Die Anzeige bleibt dunkel, obwohl das Kabel eingesteckt ist.
The motor protection switch trips after ten minutes.
| Der Motorschutzschalter löst nach zehn Minuten aus.
One of the three phases has no voltage.
| Eine der drei Phasen hat keine Spannung.
We get a small electric shock when we touch the casing.
| Wenn wir das Gehäuse anfassen, bekommen wir einen leichten Stromschlag.
The frequency converter shows error F07 and does not start.
| Der Frequenzumrichter zeigt Fehler F07 und läuft nicht an.
The wires in the terminal box are burnt.
| Die Drähte im Klemmenkasten sind verschmort.
After the power cut the control unit does not come on any more.
| Nach dem Stromausfall geht die Steuerung nicht mehr an.
# delivery
The spare parts that we ordered two weeks ago have not arrived.
| Die Ersatzteile, die wir vor zwei Wochen bestellt haben, sind nicht angekommen.
When will your van bring the new impeller?
| Wann bringt euer Lieferwagen das neue Laufrad?
Only three of the five boxes were on the pallet.
| Auf der Palette standen nur drei von fünf Kartons.
The driver left our parcel at the wrong gate.
| Der Fahrer hat unser Paket am falschen Tor abgestellt.
Can the shipment come on Thursday instead of Monday?
| Kann die Sendung am Donnerstag statt am Montag kommen?
The carton was crushed on the way and the goods are damaged.
| Der Karton wurde unterwegs zerdrückt, und die Ware ist beschädigt.
Please tell us the tracking number of our order.
| Bitte nennt uns die Sendungsnummer unserer Bestellung.
You sent us a valve that we never ordered.
| Ihr habt uns ein Ventil geschickt, das wir nie bestellt haben.
# invoice
We were charged twice for the same repair.
| Uns wurde dieselbe Reparatur zweimal berechnet.
The amount on the bill does not match your offer.
| Der Betrag auf der Rechnung passt nicht zu eurem Angebot.
Please send the invoice to our new address.
| Bitte schickt die Rechnung an unsere neue Anschrift.
The discount that we agreed on is missing.
| Der vereinbarte Rabatt fehlt.
We paid in March and still got a reminder.
| Wir haben im März bezahlt und trotzdem eine Mahnung bekommen.
Which account should we transfer the money to?
| Auf welches Konto sollen wir das Geld überweisen?
The VAT number on your statement is wrong.
| Die Umsatzsteuernummer auf eurer Abrechnung ist falsch.
Can we pay the sum in two instalments?
| Können wir die Summe in zwei Raten bezahlen?
# other
Happy birthday to the whole team!
| Alles Gute zum Geburtstag an das ganze Team!
What is on the menu in your canteen tomorrow?
| Was gibt es morgen in eurer Kantine?
I would like to apply for a job as a trainee.
| Ich möchte mich um einen Ausbildungsplatz bewerben.
Thank you, everything works fine again.
| Danke, alles läuft wieder bestens.
Who won the football match last night?
| Wer hat gestern Abend das Fußballspiel gewonnen?
Do you offer guided tours for school classes?
| Bietet ihr Führungen für Schulklassen an?
Please take me off your mailing list.
| Bitte nehmt mich aus eurem Verteiler.
My daughter needs a sponsor for her chess club.
| Meine Tochter sucht einen Sponsor für ihren Schachverein.
"""

_TEST = """
# leak
Oil keeps seeping out between the two halves of the casing.
The seal on pump two is leaking badly, please come today.
We find wet spots on the floor below the suction pipe.
A fine jet of water shoots out at the coupling.
Since the repair it loses about a cup of fluid an hour.
There is water in the cellar and it comes from your pump.
The drain plug is not tight any more.
Grease and water drip onto the conveyor belt.
# noise
Our machine makes a terrible racket.
You can hear it whining all through the hall.
Something clicks inside with every turn of the shaft.
It roars like an aeroplane when it runs at full speed.
The motor sounds rough and uneven today.
There was a loud bang, and now it buzzes.
The pump has become much louder than the one beside it.
It chatters and trembles at low speed.
# electrical
The pump does not react when I press the start button.
The circuit breaker goes off every time.
There was a smell of burning and sparks came out of the plug.
The sensor cable is broken and the screen shows nothing.
We measure only 180 volts at the terminals.
The motor winding has a short circuit.
The emergency stop lamp flickers all the time.
The battery of the controller is empty.
# delivery
Where is our order from last Friday?
The courier did not find the entrance and drove away again.
Two gaskets are missing in the package.
We need the replacement motor by Wednesday, can you ship it by express?
The wrong bearings were in the box.
Your lorry blocked our yard for an hour when it unloaded.
Nobody was here when you tried to hand over the crate.
The delivery note says ten pieces, but we counted eight.
# invoice
There is a mistake in the total of invoice 4711.
Please correct the billing address.
Why do we have to pay for the technician's travel?
We have not received a receipt for our payment.
You billed us for work that was under warranty.
The credit note for the returned motor has not been booked.
Your price list and the bill differ by forty euros.
We would like to get our statements by e-mail.
# other
I wish you all a merry Christmas.
Is there a car park near your office?
Can you recommend a hotel in Goslar?
The new website looks great.
My cat is asleep on the keyboard.
I have a question about the history of your company.
Please call me back.
Are you hiring software developers?
"""
