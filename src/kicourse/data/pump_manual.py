"""A page of Harz Pumpen's service manual, in German and in English, with what customers ask about it.

    manual = pump_manual.passages("de")
    questions = pump_manual.questions("de")
    questions[0].answered_by(manual[0].text)

Passage and question number n are the same in both languages. German writes compounds as one word (Gleitringdichtung),
and customers name a part of them (Dichtung): what English writes as two words is found, and this is not. One German
passage has a soft hyphen inside a word, as texts have that come from a printed page.
"""

from typing import Literal

from kicourse.data.questions import Document, Question

Language = Literal["de", "en"]


def passages(language: Language) -> list[Document]:
    """Return the passages of the manual; each is a paragraph with a name."""
    return [Document(name, {"de": german, "en": english}[language]) for name, german, english in _PASSAGES]


def questions(language: Language) -> list[Question]:
    """Return customers' questions, each with quotations that answer it."""
    return [
        Question(*{"de": (german, german_answers), "en": (english, english_answers)}[language])
        for (german, german_answers), (english, english_answers) in _QUESTIONS
    ]


_PASSAGES = (
    (
        "seal",
        "Tropft Fördermedium an der Welle aus, ist die Gleitringdichtung verschlissen. Tauschen Sie sie nach "
        "8.000 Betriebsstunden, spätestens jedoch alle zwei Jahre.",
        "If pumped liquid drips out at the shaft, the mechanical seal is worn. Replace the seal after 8,000 hours of "
        "operation, and every two years at the latest.",
    ),
    (
        "bearings",
        "Die Kugellager des Motors sind auf Lebensdauer geschmiert. Ein heller, singender Ton deutet auf einen "
        "Lagerschaden hin; wechseln Sie dann beide Kugellager gemeinsam.",
        "The ball bearings of the motor are greased for life. A bright, singing tone points to damage; then replace "
        "both ball bearings together.",
    ),
    (
        "venting",
        "Vor der Inbetriebnahme muss die Luft entweichen: Öffnen Sie die Entlüftungsschraube auf dem Spiralgehäuse, "
        "bis blasenfreie Flüssigkeit austritt, und ziehen Sie sie mit 12 Nm wieder an.",
        "Before the first start the air has to escape: open the vent screw on the volute casing until liquid without "
        "bubbles comes out, and tighten the screw again with 12 Nm.",
    ),
    (
        "dry_running",
        "Die Pumpe darf nie ohne Flüssigkeit laufen. Der Trockenlaufschutz schaltet nach fünf Sekunden ab und wird "
        "am Schaltschrank mit der blauen Taste zurückgesetzt.",
        "The pump must never run without liquid. The dry-running protection switches off after five seconds and is "
        "reset with the blue button on the control cabinet.",
    ),
    (
        "frost",
        "Bei Frostgefahr ist die Anlage zu entleeren: Nehmen Sie dazu die Ablassschraube an der tiefsten Stelle des "
        "Pumpengehäuses heraus. Eine Mischung mit 30 % Glykol schützt bis minus 15 °C.",
        "If there is a danger of frost, empty the system: take out the drain plug at the lowest point of the pump "
        "casing. A mixture with 30 % glycol protects down to minus 15 °C.",
    ),
    (
        "oil",
        "Der Ölwechsel am Getriebe ist jährlich fällig. Verwenden Sie 0,8 Liter Getriebeöl der Klasse CLP 220; "
        "die Einfüllöffnung sitzt neben dem Ölschauglas.",
        "The gear oil has to be changed once a year. Use 0.8 litres of gear oil of class CLP 220; the filling hole is "
        "beside the oil sight glass.",
    ),
    (
        "temperature",
        "Die Lagertemperatur darf 80 °C nicht überschreiten. Darüber löst der Temperaturfühler zuerst eine Warnung "
        "und bei 95 °C die Abschaltung aus.",
        "The temperature of the bearings must not exceed 80 °C. Above that the temperature sensor first gives a "
        "warning, and at 95 °C it shuts the pump down.",
    ),
    (
        "cavitation",
        "Klingt die Pumpe, als liefen Kieselsteine hindurch, so kavitiert sie: Der Druck in der Saugleitung ist zu "
        "niedrig. Reinigen Sie das Saugsieb und senken Sie die Drehzahl.",
        "If the pump sounds as if gravel ran through it, it cavitates: the pressure in the suction line is too low. "
        "Clean the suction strainer and reduce the speed.",
    ),
    (
        "impeller",
        "Sinkt die Fördermenge bei gleicher Drehzahl, ist meist das Laufrad verstopft oder abgenutzt. Der Spalt "
        "zwischen Laufrad und Gehäuse beträgt im Neuzustand 0,3 mm.",
        "If the flow falls at the same speed, the impeller is usually clogged or worn. In a new pump the gap between "
        "impeller and casing is 0.3 mm.",
    ),
    (
        "direction",
        "Dreht der Motor falsch herum, fördert die Pumpe kaum. Lassen Sie von einer Elektrofachkraft zwei Phasen des "
        "Drehstromanschlusses tauschen; der Drehrichtungspfeil ist auf der Lüfterhaube.",
        "If the motor turns the wrong way round, the pump delivers hardly anything. Let an electrician swap two phases "
        "of the three-phase supply; the arrow for the direction is on the fan cover.",
    ),
    (
        "fuse",
        "Der Motorschutzschalter ist auf den Nennstrom des Typenschilds einzustellen. Löst er wiederholt aus, messen "
        "Sie die Stromaufnahme, bevor Sie ihn zurücksetzen.",
        "Set the motor protection switch to the rated current of the name plate. If it trips repeatedly, measure the "
        "current before you reset it.",
    ),
    (
        "pressure",
        "Das Überdruckventil öffnet bei 6 bar. Es ist werkseitig verplombt; wird die Plombe entfernt, erlischt die "
        "Gewährleistung.",
        "The pressure relief valve opens at 6 bar. It is sealed at the factory; if the seal is removed, the warranty "
        "ends.",
    ),
    (
        "spare_parts",
        "Ersatzteile bestellen Sie mit der achtstelligen Artikelnummer und der Seriennummer vom Typenschild. Was bis "
        "14 Uhr bestellt ist, verlässt das Werk am selben Tag.",
        "Order spare parts with the article number of eight digits and the serial number from the name plate. What is "
        "ordered by 2 p.m. leaves the factory on the same day.",
    ),
    (
        "storage",
        "Drehen Sie bei längerem Stillstand die Pumpen\u00adwelle einmal im Monat von Hand durch, damit sich die "
        "Dichtflächen nicht verkleben.",
        "During long standstills, turn the pump shaft by hand once a month, so that the sealing faces do not stick "
        "together.",
    ),
    (
        "display",
        "Zeigt das Bedienfeld E17, fehlt das Signal des Durchflusssensors. Prüfen Sie den Steckverbinder und die "
        "Schirmung des Sensorkabels.",
        "If the panel shows E17, the signal of the flow sensor is missing. Check the connector and the shielding of "
        "the sensor cable.",
    ),
    (
        "disposal",
        "Altöl und ölhaltige Putzlappen gehören nicht in den Hausmüll. Die Sammelstelle des Werks nimmt sie "
        "kostenlos zurück.",
        "Used oil and oily rags do not belong in the household waste. The collection point of the factory takes them "
        "back free of charge.",
    ),
)

_QUESTIONS = (
    (
        ("Wann muss ich die Dichtung wechseln?", ("nach 8.000 Betriebsstunden",)),
        ("When do I have to change the seal?", ("after 8,000 hours of operation",)),
    ),
    (
        ("Wie bekomme ich die Luft aus der Pumpe?", ("Öffnen Sie die Entlüftungsschraube",)),
        ("How do I get the air out of the pump?", ("open the vent screw",)),
    ),
    (
        ("Welches Öl für das Getriebe?", ("Getriebeöl der Klasse CLP 220",)),
        ("Which oil for the gears?", ("gear oil of class CLP 220",)),
    ),
    (
        ("Wie heiß darf ein Lager werden?", ("darf 80 °C nicht überschreiten",)),
        ("How hot may a bearing become?", ("must not exceed 80 °C",)),
    ),
    (
        ("Was bedeutet E17?", ("fehlt das Signal des Durchflusssensors",)),
        ("What does E17 mean?", ("the signal of the flow sensor is missing",)),
    ),
    (
        ("Es klingt nach Steinen in der Pumpe", ("so kavitiert sie",)),
        ("It sounds like stones in the pump", ("it cavitates",)),
    ),
    (
        ("Schrauben am Gehäuse: mit welchem Drehmoment anziehen?", ("mit 12 Nm",)),
        ("Screws on the casing: tighten them with which torque?", ("with 12 Nm",)),
    ),
    (
        ("Muss ich die Welle drehen, wenn die Pumpe lange steht?", ("einmal im Monat von Hand",)),
        ("Must I turn the shaft when the pump is not used for long?", ("by hand once a month",)),
    ),
    (
        ("Bei welchem Druck öffnet das Ventil?", ("öffnet bei 6 bar",)),
        ("At which pressure does the valve open?", ("opens at 6 bar",)),
    ),
    (
        ("Schutz gegen Trockenlauf zurücksetzen", ("am Schaltschrank mit der blauen Taste",)),
        ("Reset the protection against dry running", ("reset with the blue button on the control cabinet",)),
    ),
    (
        ("Der Schalter für den Motorschutz fliegt raus", ("messen Sie die Stromaufnahme",)),
        ("The switch of the motor protection trips", ("measure the current before you reset it",)),
    ),
    (
        ("Wohin mit altem Öl?", ("Die Sammelstelle des Werks",)),
        ("Where do I take old oil?", ("The collection point of the factory",)),
    ),
)
