"""Given names and surnames that are common in the world, written down by hand: what the person rules know, and what
pseudonyms are made of. Common knowledge, no data set; add what is missing among your people to `person.extra_names`."""

from __future__ import annotations

GIVEN = tuple("""
James John Robert Michael William David Richard Joseph Thomas Charles Christopher Daniel Matthew Anthony Donald Steven
Andrew Kenneth Joshua Kevin Brian George Timothy Ronald Edward Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan
Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Alexander Patrick Raymond Jerry Dennis Tyler Aaron Jose
Adam Nathan Henry Zachary Douglas Peter Kyle Noah Ethan Jeremy Walter Keith Roger Terry Sean Gerald Carl Dylan Harold
Jordan Jesse Bryan Lawrence Arthur Gabriel Bruce Logan Billy Joe Alan Juan Elijah Willie Albert Wayne Randy Mason
Vincent Liam Roy Bobby Caleb Bradley Russell Lucas Oliver Oscar Harry Jack Leo Theo Max Felix Simon Martin Paul Mark
Philip Stuart Graham Neil Ian Colin Malcolm Duncan Gareth Rhys Owen Declan Conor Niall Eoin Aidan Craig Barry Trevor
Nigel Clive Derek Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Sandra
Margaret Ashley Kimberly Emily Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Sharon Laura Cynthia
Dorothy Amy Kathleen Angela Shirley Emma Brenda Pamela Nicole Anna Samantha Katherine Christine Helen Debra Rachel
Carolyn Janet Maria Catherine Heather Diane Olivia Julie Joyce Victoria Ruth Virginia Lauren Kelly Christina Joan
Evelyn Judith Andrea Hannah Megan Cheryl Jacqueline Martha Madison Teresa Gloria Sara Janice Ann Kathryn Abigail
Sophia Frances Jean Alice Judy Isabella Julia Grace Amber Denise Danielle Marilyn Beverly Charlotte Natalie Theresa
Diana Brittany Doris Kayla Alexis Lori Marie Jane Lucy Chloe Zoe Ella Amelia Isla Poppy Freya Imogen Fiona Siobhan
Niamh Aoife Gemma Claire Nicola Tracy Wendy Hazel Rose Daisy Lily Ruby Ivy Hope Faith Joy April May June Dawn Eve
Holly Bill Bob Tom Tim Jim Mike Dave Steve Chris Nick Ben Sam Dan Matt Alex Kate Katie Liz Beth Jenny Sue Maggie Molly
Annie Tina Gina Nina Frank Will Art Drew Grant Chase Hans Wolfgang Klaus Jürgen Dieter Manfred Horst Günter Günther
Uwe Werner Bernd Rainer Helmut Gerhard Heinz Karl Stefan Andreas Matthias Markus Torsten Thorsten Jörg Ralf Christian
Sebastian Tobias Florian Jan Lukas Jonas Leon Finn Maximilian Moritz Niklas Fabian Philipp Johannes Jakob Emil Anton
Kai Sven Lars Olaf Holger Volker Ursula Renate Monika Ingrid Helga Karin Brigitte Gisela Christa Elke Petra Sabine
Susanne Birgit Heike Martina Gabriele Angelika Claudia Silke Anja Katrin Katja Kerstin Tanja Nadine Stefanie Melanie
Jana Lena Leonie Mia Hanna Johanna Clara Greta Frieda Ida Marlene Annika Franziska Ulrike Jutta Anke Antje Beate
Bärbel Heidi Lieselotte Gudrun Pierre Michel André Philippe Alain Bernard Jacques Gérard Claude Christophe Patrice
Laurent Nicolas Thierry Olivier Pascal Stéphane Sébastien Frédéric Julien Antoine Guillaume Mathieu Maxime Hugo Louis
Jules Gaston Étienne François Sylvie Nathalie Isabelle Valérie Christelle Véronique Sandrine Céline Aurélie Émilie
Camille Chloé Manon Léa Inès Élodie Amélie Mathilde Juliette Monique Françoise Geneviève Hélène Cécile Delphine
Margaux José Antonio Manuel Francisco Javier Carlos Miguel Jesús Ángel Pedro Alejandro Fernando Pablo Sergio Jorge
Luis Alberto Álvaro Diego Adrián Raúl Enrique Ramón Vicente Andrés Joaquín Rafael Ricardo Eduardo Mateo Santiago
Guillermo Ignacio Carmen Dolores Pilar Josefa Isabel Ana Antonia Francisca Lucía Marta Elena Cristina Paula Raquel
Rosario Mercedes Beatriz Silvia Rocío Sofía Valeria Ximena Guadalupe Esperanza Consuelo Inmaculada Montserrat Nuria
Irene Alba Lorena Giuseppe Giovanni Mario Luigi Francesco Salvatore Marco Alessandro Matteo Lorenzo Davide Stefano
Paolo Roberto Fabio Luca Simone Riccardo Filippo Giorgio Pietro Vincenzo Angelo Massimo Claudio Franco Bruno Giulia
Francesca Chiara Alessia Giorgia Elisa Valentina Federica Paola Roberta Giovanna Rosa Lucia Caterina Ilaria Pieter
Willem Cornelis Hendrik Gerrit Maarten Jeroen Bas Sander Daan Sem Thijs Ruben Joost Koen Wouter Bart Anneke Marieke
Femke Sanne Lotte Fleur Iris Roos Saskia Ingeborg Mieke Truus Wilhelmina Margriet Els Ineke Marijke Erik Anders Johan
Per Nils Mikael Olof Gustav Björn Henrik Magnus Fredrik Axel Ulf Göran Leif Håkan Kjell Eva Kristina Birgitta Astrid
Linnea Elsa Maja Ebba Saga Freja Agneta Gunilla Malin Ulla Søren Jens Niels Mads Rasmus Ole Bjarne Knut Øyvind Kari
Liv Solveig Sigrid Bente Mette Pernille Juhani Mikko Jukka Aino João Luís Paulo Tiago Rui Nuno Gonçalo Rodrigo Thiago
Felipe Gustavo Caio Marcelo Fernanda Juliana Mariana Larissa Camila Letícia Patrícia Aline Vanessa Adriana Luciana
Tatiana Renata Marina Inês Catarina Joana Filipa Piotr Krzysztof Andrzej Tomasz Paweł Marcin Michał Jakub Wojciech
Grzegorz Łukasz Katarzyna Małgorzata Agnieszka Ewa Magdalena Joanna Zofia Aleksandra Ivan Dmitri Dmitry Sergei Sergey
Alexei Alexey Vladimir Nikolai Mikhail Andrei Yuri Boris Igor Oleg Pavel Olga Natalia Svetlana Irina Ekaterina
Anastasia Ludmila Galina Oksana Yulia Jiří Petr Tomáš Zdeněk Jaroslav Milan Zoran Goran Dragan Nikola Luka Jelena
Milica Ivana István László Zoltán Ferenc Katalin Erzsébet Ion Mihai Ioana Georgios Dimitris Nikos Konstantinos Eleni
Katerina Mehmet Mustafa Ahmet Ali Hüseyin Emre Can Murat Ayşe Fatma Emine Zeynep Elif Mohammed Muhammad Mohamed Ahmed
Omar Hassan Hussein Ibrahim Khalid Youssef Yusuf Abdullah Abdul Karim Tariq Bilal Samir Fatima Aisha Khadija Maryam
Zainab Layla Leila Amina Noor Yasmin Salma Hanan Rania Rahul Amit Sanjay Rajesh Vijay Anil Sunil Ravi Suresh Ramesh
Deepak Arjun Vikram Rohan Aditya Karthik Raj Ashok Manoj Priya Anjali Pooja Neha Sunita Kavita Lakshmi Divya Shreya
Ananya Meera Nisha Rekha Geeta Swati Wei Fang Ming Li Jing Yan Hui Xin Xiaoming Jun Yong Lei Tao Hao Chen Mei Ling
Ying Hong Yu Jie Hiroshi Takashi Kenji Yuki Haruto Satoshi Kazuo Akira Yoko Keiko Sakura Yumi Naoko Hana Aiko Minjun
Jiho Seojun Jiwoo Minji Soyeon Nguyen Linh Minh Thanh Huong Tuan Anh Kwame Kofi Kwabena Ama Akua Chinedu Emeka Ngozi
Chioma Oluwaseun Adebayo Folake Thabo Sipho Nomsa Lerato Wanjiru Kamau Abebe Tadesse Selam Amara Zuri Moshe Yosef Avi
Noam Tamar Miriam Esther Shira Reza Mehdi Hossein Shirin Nasrin Enzo Gianni Gianluca Emanuele Daniele Edoardo Tommaso
Leonardo Nicolò Raffaele Gennaro Rita Carla Sofia Aurora Ginevra Beatrice Noemi Ludovica Bianca Camilla Serena Simona
Monica Patrizia Daniela Cinzia Loredana Ornella Eleonora Leander Emilia Mathilda Amelie Luisa Pauline Helene Veronika
Edith Hildegard Irmgard Waltraud Gertrud Elfriede Rudolf Siegfried Friedrich Wilhelm Otto Hermann Ludwig Erich Ernst
Fritz Georg Heinrich Hubert Josef Kurt Norbert Oskar Reinhard Roland Rudi Theodor Udo Ulrich Willi Eckhard Detlef
Harald Henri Émile Marcel Lucien Gilles Didier Yves Hervé Franck Cédric Ludovic Arnaud Benoît Xavier Rémi Théo Raphaël
Adèle Agathe Anaïs Audrey Aurore Capucine Caroline Clémence Colette Constance Édith Élise Emmanuelle Eugénie Gabrielle
Henriette Joséphine Josette Laetitia Lucie Madeleine Marcelle Marguerite Mireille Odette Paulette Renée Solange
Stéphanie Suzanne Thérèse Virginie Yvette Yvonne Zoé Éléonore Alix Margot Maurice Alfonso Alonso Arturo Benito
Cristian César Emilio Ernesto Esteban Eugenio Federico Félix Gonzalo Héctor Hernán Iván Jaime Julián Julio Leandro
Marcos Mariano Mauricio Nicolás Octavio Óscar Rodolfo Rubén Salvador Tomás Víctor Alejandra Alicia Amparo Amaya Belén
Blanca Carolina Concepción Gabriela Inés Jimena Josefina Juana Julieta Leonor Leticia Manuela Marcela Margarita Mónica
Noelia Rebeca Soledad Susana Verónica Yolanda Zaira Ainhoa Nerea Chus Paco Pepe Nacho Curro Bram Levi Luuk Noud Gijs
Stijn Teun Floris Jasper Jelle Sjoerd Wim Kees Henk Piet Klaas Dirk Ruud Frits Arie Tess Sophie Zoë Evi Anne Britt Isa
Nienke Esmée Maud Linde Jolanda Sterre Vera Nora Lynn Luna Elin Alva Wilma Alma Tuva Agnes Signe Stina Emelie Josefin
Frida Helena Inger Gun Marianne Berit Therese Viktor Isak Elias Hampus Mattias Patrik Tommy Kent Bengt Lennart Stig
Sten Arne Rolf Vihaan Reyansh Ayaan Krishna Ishaan Shaurya Atharv Kabir Dhruv Aarav Aryan Yash Nikhil Varun Kunal
Gaurav Vivek Abhishek Akash Ajay Alok Anand Ankit Arvind Ashish Dinesh Ganesh Gopal Harish Hemant Kiran Lalit Mahesh
Mohan Mukesh Naveen Pankaj Prakash Pranav Rakesh Sachin Sandeep Santosh Shiva Shyam Siddharth Sudhir Tarun Umesh
Venkat Vinod Aditi Aishwarya Amrita Anita Anushka Archana Bhavna Deepika Ishita Jaya Jyoti Kajal Kiara Lata Madhuri
Manisha Mamta Nandini Pallavi Radha Rani Rashmi Ritu Sangeeta Sarita Seema Shanti Shobha Smita Sneha Sonia Sudha Suman
Sushma Tanvi Uma Usha Vandana Vidya Zara Otávio Vinícius Matheus Mateus Heitor Bernardo Davi Benício Murilo Anderson
Wellington Heloísa Laís Lívia Natália Rafaela Sabrina Stephany Thaís Vitória Brandi Brandy Courtney Crystal Erica
Erika Erin Jamie Jill Kathy Kim Kristen Kristin Leslie Lindsay Lindsey Marcus Natasha Penny Phillip Rhonda Ricky Robin
Ronnie Seth Shane Shannon Shawn Stacy Stacey Tammy Tanya Tara Todd Tonya Tracey Travis Troy Valerie Veronica Warren
Wesley Whitney Alison Bethany Carole Dominic Gillian Glen Hilary Howard Jodie Jayne Josh Joel Kirsty Leanne Lesley
Lorraine Louise Lynne Marian Maureen Rosemary Sally Sheila Shaun Sylvia Toby Georgina Hugh Geoffrey Marion Beverley
Geraldine Siti Nur Putri Budi Agus Dewi Somchai Malee
""".split())
SURNAMES = tuple("""
Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson Anderson
Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis Robinson Walker Young
Allen King Wright Scott Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera Campbell Mitchell Carter
Roberts Gomez Phillips Evans Turner Diaz Parker Cruz Edwards Collins Reyes Stewart Morris Morales Murphy Cook Rogers
Gutierrez Ortiz Morgan Cooper Peterson Bailey Reed Kelly Howard Ramos Kim Cox Ward Richardson Watson Brooks Chavez
Wood James Bennett Gray Mendoza Ruiz Hughes Price Alvarez Castillo Sanders Patel Myers Long Ross Foster Jimenez Powell
Jenkins Perry Russell Sullivan Bell Coleman Butler Henderson Barnes Fisher Vasquez Simmons Graham Murray Ford Hamilton
Wallace Cole West Owens Reynolds Fox Griffin Ellis Harrison Gibson McDonald Woods Washington Marshall Ortega Hunt
Palmer Robertson Black Knight Holmes Mills Stone Webb Simpson Dixon Shaw Gordon Burns Walsh O'Brien O'Connor Byrne
Ryan Doyle Kennedy Lynch Fletcher Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer
Koch Bauer Richter Klein Wolf Schröder Neumann Schwarz Zimmermann Braun Krüger Hofmann Hartmann Lange Schmitt Werner
Krause Meier Lehmann Schmid Schulze Maier Köhler Herrmann König Walter Mayer Huber Kaiser Fuchs Peters Lang Scholz
Möller Weiß Jung Hahn Schubert Vogel Friedrich Keller Günther Frank Berger Winkler Roth Beck Lorenz Baumann Franke
Albrecht Schuster Simon Ludwig Böhm Winter Kraus Dubois Durand Leroy Moreau Laurent Lefebvre Michel Bertrand Roux
Vincent Fournier Morel Girard Lefevre Mercier Dupont Lambert Bonnet Rousseau Blanc Guerin Faure Garnier Chevalier
Petit Bernard Robert Richard García Fernández González Rodríguez López Martínez Sánchez Pérez Gómez Jiménez Hernández
Díaz Moreno Álvarez Muñoz Romero Alonso Gutiérrez Navarro Domínguez Vázquez Serrano Blanco Molina Suárez Delgado
Castro Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Conti Costa Giordano Mancini Rizzo
Lombardi Moretti Barbieri Fontana Santoro Mariani Rinaldi Caruso Ferrara Galli Jansen Bakker Visser Smit Meijer Mulder
Bos Vos Hendriks Dekker Brouwer Dijkstra Kuipers Andersson Johansson Karlsson Nilsson Eriksson Larsson Olsson Persson
Svensson Gustafsson Pettersson Jonsson Lindberg Lindström Hansen Jensen Nielsen Pedersen Andersen Christensen Larsen
Sørensen Olsen Berg Haugen Korhonen Virtanen Silva Santos Oliveira Souza Pereira Ferreira Alves Ribeiro Carvalho
Almeida Lima Gomes Martins Barbosa Rocha Nowak Kowalski Wiśniewski Wójcik Kowalczyk Kamiński Lewandowski Zieliński
Novák Svoboda Novotný Horvat Kovač Nagy Kovács Szabó Popescu Ivanov Petrov Smirnov Kuznetsov Popov Sokolov Volkov
Yılmaz Kaya Demir Çelik Şahin Öztürk Papadopoulos Khan Ahmed Ali Hussain Malik Sharma Kumar Singh Gupta Verma Reddy
Rao Nair Iyer Mehta Shah Desai Joshi Wang Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Zhu Lin Guo Tanaka Suzuki
Takahashi Watanabe Ito Yamamoto Nakamura Kobayashi Sato Kato Park Choi Kang Tran Pham Hoang Okafor Okeke Adeyemi
Mensah Boateng Owusu Dlamini Nkosi Mwangi Ochieng Cohen Levy Mizrahi
""".split())

AMBIGUOUS = frozenset(name.lower() for name in """
Grace Rose Daisy Lily Ruby Ivy Hope Faith Joy April May June Dawn Eve Holly Hazel Amber Victoria Virginia Charlotte
Madison Jordan Austin Chase Grant Mark Will Art Bill Frank Jack Max Drew Rob Logan Mason Dan Sam Can Li Chen Yu Hong
Alba Iris Gloria Esperanza Rosario Dolores Mercedes Pilar Consuelo Bruce Wayne Roy Martin Scott Tyler Kelly Lauren
Owen Joe Jean Marina Paris Sydney Florence Ali Ming Jun Mei Long Roos Bas Liv Saga Fleur Kari Anh Ion Nur Lei Tao
Jesse Duncan Craig Clive Dylan Russell Douglas Gary Carol Angel Angela Christian Roman Penny Sandy Claude Jules Hugo
Leo Oscar Felix Luna Siti Amina Crystal Robin Kent Glen Aurora Bianca Uma Kiran Shiva Lata Jaya Linde Vera Noor
Constance Marion Soledad Thomas Lawrence Vincent Jose Juan Santiago Diego Isla Jan Per Elsa Ada Julia Ann Tina Wei
""".split())
"""Given names that are also words, places, months or products: alone, or before any capitalised word, they prove
little."""

NOT_A_SURNAME = frozenset("""
hospital hospitals university college school institute foundation center centre clinic company inc ltd llc gmbh corp
corporation group street road avenue lane drive court park bridge river lake mountain island islands county city state
states town valley beach bay airport station hotel restaurant museum church cathedral castle house building tower
square prize award act law rule theorem equation test syndrome disease disorder procedure method effect index scale
sign reflex period team department office committee council association society union party bank club press medal
model version edition series program project day week month year january february march april may june july august
september october november december monday tuesday wednesday thursday friday saturday sunday north south east west
northern southern eastern western northeast area and or the of in on at is are was has had will can should must for
with from by to i you he she it we they this that these those who what when where why how if then there here however
also but because agreement section article schedule exhibit parties amendment license service services product
products software support customer customers account payment card order orders bluetooth usb hall store shop market
line cell cells virus fever gene protein acid palsy tumor cancer therapy medical health care sciences science
technology und oder der die das straße platz weg allee klinik universität krankenhaus stiftung verein gesellschaft de
la le et du des
""".split())
